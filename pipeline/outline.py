"""The outline of a plan: its rows in their order and shards, without the prompts. Deterministic.

At 100 million rows the prompts are hundreds of gigabytes. They stay where `pipeline.spool` put them, and only
one block of shards at a time is read in full.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DataError
from pipeline.schemas import NUMBERED_OUTLINE, OUTLINE, PLAN, PROMPTS, conform
from pipeline.settings import KINDS, Kind
from pipeline.sharing import COMPARED, ScopeOf, origins
from pipeline.spool import RowReader

# Rows whose prompts are in memory at once, whole shards: enough of them that neighbours are read together.
ROWS_IN_FULL = 8192
MAX_SHARD_ROWS = (
    ROWS_IN_FULL  # of equal prompts, however few of them are generated: a worker holds their texts
)
ROWS_PER_CHUNK = 1 << 20  # of an outline: far from the 2 GiB that one array of strings holds

IDENTITY = ("kind", "entity_id")
_TEXTS = [name for name in PLAN.names if name not in OUTLINE.names]
_SORTED_BY = ("kind", "group", "prompt", "entity_id")


def outline_plan(
    prompts: pa.Table, shard_size: int, wanted: np.ndarray | None = None, scope_of: ScopeOf | None = None
) -> pa.Table:
    """Order `prompts` (schema PROMPTS) and cut them into shards of at most `shard_size` texts to generate.

    Returns a table of schema NUMBERED_OUTLINE. `wanted`, a boolean for each row, says which are planned;
    None: all. `scope_of`: which rows share the text of an equal prompt; None: each has a text of its own.

    Items come first, then users (the order of `KINDS`); within a kind rows are sorted by group, then by
    prompt text, which puts prompts that share the longest prefix next to each other, then by id. The
    order of the input does not matter.

    A shard belongs to one kind. Groups keep to themselves where they fill at least half a shard;
    smaller ones are joined with their neighbours until together they do. Each such unit is cut evenly,
    so a shard holds between half of `shard_size` and `shard_size` rows unless the whole kind is
    smaller. A worker batches over several shards at once, so small shards would not empty its batch,
    but each costs a task, a file and a manifest; and a request names its own pool, so a shard over two
    groups loses nothing but a little locality.

    Rows that share a text stand together, where the first of them would stand, and count as one of a shard's
    `shard_size` texts. They are in one shard, unless they are more than `MAX_SHARD_ROWS`: then their text is
    generated once in each of several shards. Relaxed texts count as one each, and are shared within a shard:
    only its worker knows which entities have an earlier text.
    """
    if shard_size < 1:
        raise ConfigError(f"plan.shard_size must be at least 1, not {shard_size}")
    prompts = conform(prompts, PROMPTS, "prompts", unique=IDENTITY)
    reject_unknown_kinds(prompts, "prompts")
    order = pc.sort_indices(prompts, sort_keys=[(name, "ascending") for name in _SORTED_BY])
    order = order.to_numpy().view(np.int64)
    if wanted is not None:
        order = order[wanted[order]]
    order, homes = _equal_ones_together(prompts, order, scope_of)
    rows = taken(prompts.select([name for name in OUTLINE.names if name != "shard"]), order)
    plans, start = [NUMBERED_OUTLINE.empty_table()], 0
    for kind in KINDS:
        end = start + pc.sum(pc.equal(rows["kind"], kind), min_count=0).as_py()
        plans.append(_outline_of_kind(kind, rows.slice(start, end - start), homes[start:end], shard_size))
        start = end
    return pa.concat_tables(plans)


def _equal_ones_together(
    prompts: pa.Table, order: np.ndarray, scope_of: ScopeOf | None
) -> tuple[np.ndarray, np.ndarray]:
    """(`order` with rows that share a text behind the first of them, for each that first one's old place)."""
    if scope_of is None:
        return order, np.arange(len(order))
    keys = taken(prompts.select(COMPARED), order)
    homes = origins(keys, scope_of)
    together = np.argsort(homes, kind="stable")
    return order[together], homes[together]


def taken(table: pa.Table, order: np.ndarray) -> pa.Table:
    """The rows of `table` in `order`, and the column `row`, which is `order`."""
    reader = RowReader(table)
    cuts = range(0, len(order), ROWS_PER_CHUNK)
    chunks = [reader.read(order[first : first + ROWS_PER_CHUNK]) for first in cuts]
    rows = pa.concat_tables([table.schema.empty_table(), *chunks])
    return rows.append_column(NUMBERED_OUTLINE.field("row"), pa.array(order))


def _outline_of_kind(kind: Kind, rows: pa.Table, homes: np.ndarray, shard_size: int) -> pa.Table:
    """`homes`: equal for rows that share a text; these stand together."""
    most_rows = max(shard_size, MAX_SHARD_ROWS)
    sets = _cut_sets(_lengths(homes), most_rows)
    groups = _codes(rows["group"])[np.cumsum(sets) - sets]
    sizes = _rows_of_shards(sets, _shard_sizes(_lengths(groups).tolist(), shard_size), most_rows)
    names = pa.array([f"{kind}-{number:05d}" for number in range(len(sizes))], pa.string())
    shards = names.take(pa.array(np.repeat(np.arange(len(sizes)), sizes)))
    return rows.add_column(0, NUMBERED_OUTLINE.field("shard"), shards)


def reject_unknown_kinds(entities: pa.Table, what: str) -> None:
    """Raise `DataError` if a row is of another kind than `KINDS`."""
    known = pc.is_in(entities["kind"], value_set=pa.array(KINDS))
    if not pc.all(known, min_count=0).as_py():
        unknown = entities["kind"].filter(pc.invert(known))[0].as_py()
        raise DataError(f"{what}: kind {unknown!r} is none of {', '.join(KINDS)}")


def run_lengths(values: pa.ChunkedArray) -> list[int]:
    """Lengths of the runs of equal values, in order."""
    return _lengths(_codes(values)).tolist()


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """A number for each value, the same for equal ones."""
    if not len(values):
        return np.empty(0, np.int32)
    return pc.index_in(values, value_set=pc.unique(values)).to_numpy()


def _lengths(codes: np.ndarray) -> np.ndarray:
    """Lengths of the runs of equal numbers, none of them negative, in order."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return np.diff(starts, append=len(codes))


def _cut_sets(sizes: np.ndarray, most: int) -> np.ndarray:
    """`sizes` of sets of rows, those above `most` cut evenly."""
    if not np.any(sizes > most):
        return sizes
    cuts = [[size] if size <= most else _even_cuts(size, most) for size in sizes.tolist()]
    return np.fromiter(chain.from_iterable(cuts), np.int64)


def _rows_of_shards(sets: np.ndarray, num_sets: list[int], most: int) -> list[int]:
    """Rows of the shards that hold so many of `sets` each; those with more than `most` rows are cut."""
    ends = np.cumsum(sets)
    sizes, begin, first = [], 0, 0
    for last in accumulate(num_sets):
        while first < last:
            first = min(last, int(np.searchsorted(ends, begin + most, side="right")))
            end = int(ends[first - 1])
            sizes.append(end - begin)
            begin = end
    return sizes


def _shard_sizes(group_sizes: Sequence[int], shard_size: int) -> list[int]:
    """Texts of each shard, in order, for groups of these sizes."""
    units: list[int] = []
    for size in group_sizes:
        if units and 2 * units[-1] < shard_size:
            units[-1] += size
        else:
            units.append(size)
    if len(units) > 1 and 2 * units[-1] < shard_size:
        units[-2:] = [units[-2] + units[-1]]
    return [size for unit in units for size in _even_cuts(unit, shard_size)]


def _even_cuts(num_rows: int, largest: int) -> list[int]:
    num_cuts = -(-num_rows // largest)
    small, num_larger = divmod(num_rows, num_cuts)
    return [small + 1] * num_larger + [small] * (num_cuts - num_larger)


def shards_in_full(outline: pa.Table, prompts: pa.Table) -> Iterator[pa.Table]:
    """The shards of `outline` (schema NUMBERED_OUTLINE) one after the other, each in full (schema PLAN).

    `prompts` (schema PROMPTS) are those that were outlined.
    """
    reader = RowReader(prompts.select(_TEXTS))
    for start, sizes in _blocks(run_lengths(outline["shard"])):
        block = outline.slice(start, sum(sizes))
        rows = reader.read(block["row"].to_numpy())
        for name in OUTLINE.names:
            rows = rows.append_column(OUTLINE.field(name), block[name])
        rows = conform(rows, PLAN, "plan")
        for end, size in zip(accumulate(sizes), sizes, strict=True):
            yield rows.slice(end - size, size)


def _blocks(sizes: list[int]) -> Iterator[tuple[int, list[int]]]:
    """(first row, sizes of the shards) of consecutive shards that have `ROWS_IN_FULL` rows, or a few less."""
    start, block = 0, [*sizes[:1]]
    for size in sizes[1:]:
        if sum(block) + size > ROWS_IN_FULL:
            yield start, block
            start, block = start + sum(block), []
        block.append(size)
    if block:
        yield start, block
