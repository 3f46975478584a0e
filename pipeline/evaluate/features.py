"""What CTR models see of an interaction apart from knowledge: ids, attributes, and the liked items so far."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains import DomainTables
from pipeline.evaluate.split import TRAIN, Events
from pipeline.schemas import TEXT
from pipeline.spool import RowReader

HISTORY = "item_history"
KNOWLEDGE_HISTORY = "item_knowledge_history"
MAX_CATEGORIES = 8  # of one item


@dataclass(frozen=True)
class Field:
    """A field of the input: an id (`is_list`: several, padded with 0) of `size` values, 0 among them."""

    name: str
    size: int
    is_list: bool = False
    shares: str | None = None  # the field whose embedding it uses


@dataclass(frozen=True)
class Inputs:
    """Fields, and for each an int64 array over the events: [num_events], or [num_events, width] for lists.

    Ids that no training event has are 0, as are absent attributes and the padding of lists. Knowledge
    fields hold row numbers of the users' and items' knowledge tables (row 0: no knowledge).
    """

    fields: list[Field]
    knowledge_fields: list[Field]
    values: dict[str, np.ndarray]


def make_inputs(events: Events, tables: DomainTables, max_user_history: int) -> Inputs:
    """The inputs of all `events`. Histories hold what a user liked strictly before the event."""
    trained = events.of_part(TRAIN)
    values = {
        "user": _seen_only(events.users + 1, trained),
        "item": _seen_only(events.items + 1, trained),
        **_attributes("user", tables.users, events.user_ids, events.users, trained),
        **_attributes("item", tables.items, events.item_ids, events.items, trained),
        "item_categories": _categories(tables.items, events.item_ids)[events.items],
    }
    history = liked_before(events, max_user_history)
    known_items = np.zeros(len(events.item_ids) + 1, dtype=np.int64)
    known_items[np.unique(values["item"])] = np.unique(values["item"])
    fields = [Field(name, int(array.max()) + 1, array.ndim == 2) for name, array in values.items()]
    values[HISTORY] = known_items[history]
    fields.append(Field(HISTORY, fields[1].size, is_list=True, shares="item"))
    knowledge = _knowledge_values(events, history)
    return Inputs(fields, _knowledge_fields(events), values | knowledge)


def _knowledge_values(events: Events, history: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "user_knowledge": events.users + 1,
        "item_knowledge": events.items + 1,
        KNOWLEDGE_HISTORY: history,
    }


def _knowledge_fields(events: Events) -> list[Field]:
    num_users, num_items = len(events.user_ids) + 1, len(events.item_ids) + 1
    return [
        Field("user_knowledge", num_users),
        Field("item_knowledge", num_items),
        Field(KNOWLEDGE_HISTORY, num_items, is_list=True, shares="item_knowledge"),
    ]


def liked_before(events: Events, length: int) -> np.ndarray:
    """int64 [num_events, length]: item row + 1 of the user's last liked items before each event, then 0."""
    history = np.zeros((len(events.users), length), dtype=np.int64)
    order = np.lexsort((events.times, events.users))
    bounds = np.flatnonzero(np.diff(events.users[order], prepend=-1, append=-1))
    for first, last in pairwise(bounds):
        rows = order[first:last]
        liked = rows[events.labels[rows] > 0]
        ends = np.searchsorted(events.times[liked], events.times[rows])  # strictly before
        places = ends[:, None] - 1 - np.arange(length)[None, :]
        if len(liked):
            history[rows] = np.where(places >= 0, events.items[liked][np.maximum(places, 0)] + 1, 0)
    return history


def _seen_only(ids: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """`ids`, with 0 for those that no event of `trained` has."""
    return np.where(np.isin(ids, np.unique(ids[trained])), ids, 0).astype(np.int64)


def _attributes(
    kind: str, entities: pa.Table, ids: pa.Array, rows: np.ndarray, trained: np.ndarray
) -> dict[str, np.ndarray]:
    """A field for each attribute: the code of the entity's value, 0 if it has none."""
    places = pc.index_in(ids, value_set=entities[f"{kind}_id"].combine_chunks())
    maps = _rows(entities, "attributes", places)
    names = sorted(pc.unique(maps.keys).to_pylist())
    fields = {}
    for name in names:
        found = pc.map_lookup(maps, pa.scalar(name, TEXT), "first")
        codes = pc.fill_null(pc.index_in(found, value_set=pc.unique(found.drop_null())), -1)
        values = codes.to_numpy(zero_copy_only=False).astype(np.int64) + 1
        fields[f"{kind}_{name}"] = _seen_only(values[rows], trained)
    return fields


def _rows(entities: pa.Table, column: str, places: pa.Array) -> pa.Array:
    """The values of `column` at `places`, null where a place is, without a copy of all others."""
    known = places.drop_null().to_numpy()
    values = RowReader(entities.select([column])).read(known)[column].combine_chunks()
    is_known = places.is_valid().to_numpy(zero_copy_only=False)
    return values.take(pa.array(np.cumsum(is_known) - 1, mask=~is_known))


def _categories(items: pa.Table, ids: pa.Array) -> np.ndarray:
    """int64 [num_items, MAX_CATEGORIES]: codes of each item's categories, padded with 0."""
    places = pc.index_in(ids, value_set=items["item_id"].combine_chunks())
    lists = _rows(items, "categories", places)
    flat = pc.list_flatten(lists)
    owners = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    codes = pc.index_in(flat, value_set=pc.unique(flat)).to_numpy(zero_copy_only=False) + 1
    starts = np.searchsorted(owners, np.arange(len(ids)))
    places_in_list = np.arange(len(owners)) - starts[owners]
    table = np.zeros((len(ids), MAX_CATEGORIES), dtype=np.int64)
    kept = places_in_list < MAX_CATEGORIES
    table[owners[kept], places_in_list[kept]] = codes[kept]
    return table
