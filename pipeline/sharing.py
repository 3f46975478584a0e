"""Rows with equal prompts: the text is generated for the first of them, and the others share it.

Two rows share a text where all that decides it is the same. Besides the prompt and `max_tokens` that is:

- decoded greedily and verified strictly: nothing;
- verified by a relaxed rule: the drafts. They come from the pool of the group and from the earlier text of
  the entity; so rows of one group share a text if their entities have no earlier one;
- sampled: chance. Each text is a draw of its own and none is shared.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.contract import ShardResult
from pipeline.schemas import DECODING_COUNTS, KNOWLEDGE
from pipeline.settings import Kind, RunSettings
from pipeline.spool import RowReader

Scope = Literal["kind", "group", "row"]  # within which equal prompts have one text
ScopeOf = Callable[[Kind, str], Scope]  # of the rows of a kind and group
STRICT = "strict"
ROWS_AT_ONCE = 1 << 20
_DECIDING = ["kind", "max_tokens", "prompt_hash"]  # model and sampling are the run's
COMPARED = [*_DECIDING, "group"]  # columns that `origins` needs


def scope_of(settings: RunSettings) -> ScopeOf:
    """Which rows of a run with `settings` share the text of an equal prompt."""
    is_sampled = settings.model.sampling.temperature > 0

    def scope(kind: Kind, group: str) -> Scope:
        if is_sampled:
            return "row"
        return "kind" if settings.acceptance_label_of(kind, group) == STRICT else "group"

    return scope


def origins(rows: pa.Table, scope_of: ScopeOf, is_first_text: np.ndarray | None = None) -> np.ndarray:
    """For each of `rows` (columns COMPARED) the number of the first row that has its text, int64.

    That is its own number where no row before it has the same. `is_first_text`: for each row whether its
    entity has no earlier text to draft from; None: any may have one. Takes about 50 bytes a row for a while.
    """
    numbers = np.arange(rows.num_rows)
    scopes = _scopes(rows, scope_of, is_first_text)
    if (scopes > 0).all():
        return numbers
    keys = rows.select(_DECIDING).append_column("scope", pa.array(scopes))
    # The order is stable: the first row of each set of equal ones is the one that stood first.
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    order = order.to_numpy().view(np.int64)
    is_first = _starts(keys, order)
    found = np.empty_like(numbers)
    found[order] = order[is_first][np.cumsum(is_first) - 1]
    return found


def _scopes(rows: pa.Table, scope_of: ScopeOf, is_first_text: np.ndarray | None) -> np.ndarray:
    """A number for each row: rows with equal numbers, none above 0, may share a text."""
    scopes = np.arange(1, rows.num_rows + 1)
    pools = rows.select(["kind", "group"]).group_by(["kind", "group"]).aggregate([]).to_pylist()
    for number, pool in enumerate(pools, start=1):
        scope = scope_of(pool["kind"], pool["group"])
        if scope == "row" or (scope == "group" and is_first_text is None):
            continue
        is_of_pool = pc.and_(pc.equal(rows["kind"], pool["kind"]), pc.equal(rows["group"], pool["group"]))
        chosen = is_of_pool.to_numpy()
        if scope == "group":
            chosen = chosen & is_first_text
        scopes[chosen] = 0 if scope == "kind" else -number
    return scopes


def _starts(keys: pa.Table, order: np.ndarray) -> np.ndarray:
    """For each of `keys` in `order` whether it differs from the one before."""
    reader = RowReader(keys)
    starts = np.ones(len(order), dtype=bool)
    for begin in range(1, len(order), ROWS_AT_ONCE):
        chunk = reader.read(order[begin - 1 : begin + ROWS_AT_ONCE])
        before, these = chunk.slice(0, chunk.num_rows - 1), chunk.slice(1)
        differs = np.zeros(these.num_rows, dtype=bool)
        for name in keys.column_names:
            differs |= pc.not_equal(these[name], before[name]).to_numpy()
        starts[begin : begin + these.num_rows] = differs
    return starts


def with_shared_rows(result: ShardResult, rows: pa.Table, shared_from: np.ndarray) -> ShardResult:
    """`result`, which is about those of `rows` (schema PLAN) that have a text of their own, for all of them.

    `shared_from`: the `origins` of `rows`. A row that shares a text has cost nothing: its counts are 0. Where
    the text failed, all rows that would share it failed.
    """
    sharing = np.flatnonzero(shared_from != np.arange(rows.num_rows))
    if not len(sharing):
        return result
    rows = rows.select(["entity_id", "group", "history_cutoff"]).combine_chunks()
    wanted = rows.take(pa.array(sharing))
    source = rows["entity_id"].take(pa.array(shared_from[sharing])).combine_chunks()
    knowledge = [result.knowledge, _copies(result.knowledge, wanted, source)]
    failed = [result.failed, _copies(result.failed, wanted, source)]
    return ShardResult(result.shard, pa.concat_tables(knowledge), pa.concat_tables(failed))


def _copies(table: pa.Table, wanted: pa.Table, source: pa.Array) -> pa.Table:
    """The rows of `table` (KNOWLEDGE or FAILED) of the entities in `source`, for the entities of `wanted`."""
    places = pc.index_in(source, value_set=table["entity_id"].combine_chunks())
    is_there = pc.is_valid(places)
    wanted, source = wanted.filter(is_there), source.filter(is_there)
    copies = table.combine_chunks().take(places.filter(is_there))
    columns = {"entity_id": wanted["entity_id"]}
    if table.schema.equals(KNOWLEDGE):
        none = pa.array(np.zeros(copies.num_rows, np.int32))
        columns |= {"group": wanted["group"], "history_cutoff": wanted["history_cutoff"]}
        columns |= {"shared_from": source, **dict.fromkeys(DECODING_COUNTS, none)}
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        copies = copies.set_column(place, table.schema.field(place), column)
    return copies
