"""Items grouped by attribute: similar categories, similar knowledge (LASER, section 3.2)."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError
from pipeline.groups.names import group_name
from pipeline.schemas import GROUPS, conform
from pipeline.settings import ItemGroupSettings


def group_items(items: pa.Table, settings: ItemGroupSettings) -> pa.Table:
    """One GROUPS row for each row of `items` (schema ITEMS), in the same order.

    The group of an item is the first one of `settings.groups` that names any of its categories,
    whatever their case; else the default group. Names are made safe by `group_name`; two that become the same
    raise `ConfigError`.
    """
    names = pa.array(_safe_names([*settings.groups, settings.default_group]))
    ranks = _first_ranks(items["categories"].combine_chunks(), _rank_of_category(settings), len(names) - 1)
    columns = {
        "entity_id": items["item_id"],
        "kind": pa.repeat("item", items.num_rows),
        "group": names.take(pa.array(ranks)),
    }
    return conform(pa.table(columns), GROUPS, "item groups", unique=("kind", "entity_id"))


def _safe_names(texts: list[str]) -> list[str]:
    """The safe names; the default group may be one of the groups."""
    names: dict[str, str] = {}
    for text in texts:
        name = group_name(text)
        if names.setdefault(name, text) != text:
            raise ConfigError(
                f"dataset.item_groups: groups '{names[name]}' and '{text}' would both be named '{name}'"
            )
    return [group_name(text) for text in texts]


def _rank_of_category(settings: ItemGroupSettings) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for rank, categories in enumerate(settings.groups.values()):
        for category in categories:
            ranks.setdefault(category.casefold(), rank)
    return ranks


def _first_ranks(categories: pa.ListArray, rank_of: dict[str, int], default: int) -> np.ndarray:
    """For each list the lowest rank of its values, `default` if none has one."""
    ranks = np.full(len(categories), default, dtype=np.int64)
    values = pc.list_flatten(categories).dictionary_encode()
    known = np.array(
        [rank_of.get(text.casefold(), default) for text in values.dictionary.to_pylist()], np.int64
    )
    if len(known):
        np.minimum.at(ranks, pc.list_parent_indices(categories).to_numpy(), known[values.indices.to_numpy()])
    return ranks
