"""The plan of a run: which entities, in which order, in which shards. Deterministic."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, CorruptPartError, DataError
from pipeline.plan_file import write_shards
from pipeline.schemas import GROUPS, PLAN, PROMPTS, TIMESTAMP, conform
from pipeline.settings import KINDS, Kind
from pipeline.storage.location import read_table

_IDENTITY = ("kind", "entity_id")
ROWS_PER_CHUNK = 16384


def select_entities(
    groups: pa.Table, limit: int | Literal["all"], seed: int = 0, offset: int = 0
) -> pa.Table:
    """The sample of a run: of each kind `limit` rows of `groups` (schema GROUPS), sorted by kind and id.

    Entities are ranked by a hash of their id; the sample is the ranks from `offset` up to
    `offset + limit`. So a larger limit contains a smaller one, the next `offset` continues where a
    sample ended, and entities that come or go move only their own places in the ranking.
    """
    groups = conform(groups, GROUPS, "groups", unique=_IDENTITY)
    parts = []
    for kind, entities in _by_kind(groups, "groups").items():
        entities = entities.sort_by("entity_id")
        stop = entities.num_rows if limit == "all" else offset + limit
        ranking = _ranking(kind, entities["entity_id"].to_pylist(), seed)
        parts.append(entities.take(pa.array(np.sort(ranking[offset:stop]))))
    return pa.concat_tables(parts)


def only_entities(groups: pa.Table, only: pa.Table) -> pa.Table:
    """The rows of `groups` (schema GROUPS) whose kind and entity_id stand in `only`; others are no error."""
    groups = conform(groups, GROUPS, "groups", unique=_IDENTITY)
    parts = []
    for kind in KINDS:
        ids = only.filter(pc.equal(only["kind"], kind))["entity_id"].combine_chunks()
        is_named = pc.is_in(groups["entity_id"], value_set=ids)
        parts.append(groups.filter(pc.and_(is_named, pc.equal(groups["kind"], kind))))
    return pa.concat_tables(parts).sort_by([("kind", "ascending"), ("entity_id", "ascending")])


def _ranking(kind: Kind, entity_ids: list[str], seed: int) -> np.ndarray:
    """The positions of `entity_ids` (sorted), in the order of their hashes."""
    hashes = [_stable_hash(f"{seed}:{kind}:{entity_id}") for entity_id in entity_ids]
    return np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def reject_later_events(prompts: pa.Table, history_cutoff: datetime | None) -> None:
    """Raise `DataError` if a prompt (schema PROMPTS) shows an event at or after its cutoff, or the run's.

    Compares what was shown (`latest_event`, taken from the rendered history), not what was asked for.
    """
    bounds = [prompts["history_cutoff"]]
    if history_cutoff is not None:
        bounds.append(pa.scalar(history_cutoff, TIMESTAMP))
    for bound in bounds:
        is_late = pc.fill_null(pc.greater_equal(prompts["latest_event"], bound), False)
        if pc.any(is_late, min_count=0).as_py():
            row = (
                prompts.filter(is_late)
                .select(["kind", "entity_id", "latest_event"])
                .slice(0, 1)
                .to_pylist()[0]
            )
            raise DataError(
                f"{row['kind']} {row['entity_id']}: the prompt shows an event of {row['latest_event']}, "
                "which is not before history_cutoff"
            )


def make_plan(prompts: pa.Table, shard_size: int) -> pa.Table:
    """Order `prompts` (schema PROMPTS) and cut them into shards of at most `shard_size` rows: schema PLAN.

    Items come first, then users (the order of `KINDS`); within a kind rows are sorted by group, then by
    prompt text, which puts prompts that share the longest prefix next to each other, then by id. The
    order of the input does not matter.

    A shard belongs to one kind. Groups keep to themselves where they fill at least half a shard;
    smaller ones are joined with their neighbours until together they do. Each such unit is cut evenly,
    so a shard holds between half of `shard_size` and `shard_size` rows unless the whole kind is
    smaller. A worker batches over several shards at once, so small shards would not empty its batch,
    but each costs a task, a file and a manifest; and a request names its own pool, so a shard over two
    groups loses nothing but a little locality.
    """
    if shard_size < 1:
        raise ConfigError(f"plan.shard_size must be at least 1, not {shard_size}")
    prompts = conform(prompts, PROMPTS, "prompts", unique=_IDENTITY)
    _reject_unknown_kinds(prompts, "prompts")
    rows = _taken(prompts, _order(prompts))
    plans, start = [], 0
    for kind in KINDS:
        num_rows = pc.sum(pc.equal(rows["kind"], kind), min_count=0).as_py()
        plans.append(_plan_of_kind(kind, rows.slice(start, num_rows), shard_size))
        start += num_rows
    return pa.concat_tables(plans)


def _by_kind(entities: pa.Table, what: str) -> dict[Kind, pa.Table]:
    """The rows of each kind, in the order of `KINDS`. Raises `DataError` for any other kind."""
    _reject_unknown_kinds(entities, what)
    return {kind: entities.filter(pc.equal(entities["kind"], kind)) for kind in KINDS}


def _reject_unknown_kinds(entities: pa.Table, what: str) -> None:
    known = pc.is_in(entities["kind"], value_set=pa.array(KINDS))
    if not pc.all(known, min_count=0).as_py():
        unknown = entities["kind"].filter(pc.invert(known))[0].as_py()
        raise DataError(f"{what}: kind {unknown!r} is none of {', '.join(KINDS)}")


def _plan_of_kind(kind: Kind, rows: pa.Table, shard_size: int) -> pa.Table:
    sizes = _shard_sizes(_run_lengths(rows["group"]), shard_size)
    names = [f"{kind}-{number:05d}" for number in range(len(sizes))]
    shards = pa.array(np.repeat(np.array(names, dtype=object), sizes), pa.string())
    return rows.add_column(0, PLAN.field("shard"), shards)


def _order(rows: pa.Table) -> np.ndarray:
    """Row numbers by kind (as text: the order of `KINDS`), group, prompt and id."""
    keys = [(name, "ascending") for name in ("kind", "group", "prompt", "entity_id")]
    return pc.sort_indices(rows, sort_keys=keys).to_numpy().astype(np.int64)


def _taken(rows: pa.Table, order: np.ndarray) -> pa.Table:
    """`rows` in `order`, gathered piece by piece: prompts of a run are large, and never all copied twice."""
    batches = rows.to_batches()
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    pieces = [
        _gathered(batches, starts, order[first : first + ROWS_PER_CHUNK])
        for first in range(0, len(order), ROWS_PER_CHUNK)
    ]
    return pa.concat_tables([rows.schema.empty_table(), *pieces])


def _gathered(batches: list[pa.RecordBatch], starts: np.ndarray, wanted: np.ndarray) -> pa.Table:
    """The rows `wanted` of `batches`, whose first rows are `starts`."""
    ascending = np.argsort(wanted)
    rows = wanted[ascending]
    cuts = np.searchsorted(rows, starts)
    parts = [
        batch.take(pa.array(rows[first:last] - start))
        for batch, start, first, last in zip(batches, starts[:-1], cuts[:-1], cuts[1:], strict=True)
        if first < last
    ]
    places = np.empty(len(wanted), dtype=np.int64)
    places[ascending] = np.arange(len(wanted))
    return pa.Table.from_batches(parts).combine_chunks().take(pa.array(places))


def _run_lengths(values: pa.ChunkedArray) -> list[int]:
    """Lengths of the runs of equal values, in order."""
    if not len(values):
        return []
    codes = pc.index_in(values, value_set=pc.unique(values)).to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return np.diff(starts, append=len(codes)).tolist()


def _shard_sizes(group_sizes: Sequence[int], shard_size: int) -> list[int]:
    """Rows of each shard, in order, for groups of these sizes."""
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


def shards_of(plan: pa.Table) -> dict[str, pa.Table]:
    """The rows of each shard (slices of `plan`, not copies), in the order of the plan.

    Raises `DataError` if the rows of a shard do not stand together or are of two kinds.
    """
    lengths = _run_lengths(plan["shard"])
    shards: dict[str, pa.Table] = {}
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        rows = plan.slice(end - length, length)
        name = rows["shard"][0].as_py()
        if name in shards:
            raise DataError(f"plan: the rows of shard {name} do not stand together")
        if pc.count_distinct(rows["kind"]).as_py() != 1:
            raise DataError(f"plan: shard {name} holds more than one kind")
        shards[name] = rows
    return shards


def write_plan(plan: pa.Table, path: Path) -> None:
    """Check `plan` and write it to `path`, atomically."""
    write_shards(shards_of(_checked(plan, "plan")).values(), path)


def read_plan(path: Path) -> pa.Table:
    """The plan at `path`, checked. Raises `DataError` if it is missing, `CorruptPartError` if unreadable."""
    try:
        table = read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no plan") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptPartError(f"{path}: not a readable plan: {error}") from error
    return _checked(table, str(path))


def _checked(plan: pa.Table, what: str) -> pa.Table:
    plan = conform(plan, PLAN, what, unique=_IDENTITY)
    shards_of(plan)
    return plan
