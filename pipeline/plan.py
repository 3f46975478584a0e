"""The plan of a run: which entities, in which order, in which shards. Deterministic."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError, DataError
from pipeline.outline import IDENTITY, outline_plan, reject_unknown_kinds, run_lengths, shards_in_full
from pipeline.plan_file import write_shards
from pipeline.schemas import GROUPS, OUTLINE, PLAN, TIMESTAMP, conform
from pipeline.settings import KINDS, Kind
from pipeline.storage.location import open_parquet, read_table

VALUES_AT_ONCE = 65_536


def select_entities(
    groups: pa.Table, limit: int | Literal["all"], seed: int = 0, offset: int = 0
) -> pa.Table:
    """The sample of a run: of each kind `limit` rows of `groups` (schema GROUPS), sorted by kind and id.

    Entities are ranked by a hash of their id; the sample is the ranks from `offset` up to
    `offset + limit`. So a larger limit contains a smaller one, the next `offset` continues where a
    sample ended, and entities that come or go move only their own places in the ranking.
    """
    groups = conform(groups, GROUPS, "groups", unique=IDENTITY)
    parts = []
    for kind, entities in _by_kind(groups, "groups").items():
        entities = entities.sort_by("entity_id")
        stop = entities.num_rows if limit == "all" else offset + limit
        if offset == 0 and stop >= entities.num_rows:
            parts.append(entities)
            continue
        ranking = _ranking(kind, entities["entity_id"], seed)
        parts.append(entities.take(pa.array(np.sort(ranking[offset:stop]))))
    return pa.concat_tables(parts)


def only_entities(groups: pa.Table, only: pa.Table) -> pa.Table:
    """The rows of `groups` (schema GROUPS) whose kind and entity_id stand in `only`; others are no error."""
    groups = conform(groups, GROUPS, "groups", unique=IDENTITY)
    parts = []
    for kind in KINDS:
        ids = only.filter(pc.equal(only["kind"], kind))["entity_id"].combine_chunks()
        is_named = pc.is_in(groups["entity_id"], value_set=ids)
        parts.append(groups.filter(pc.and_(is_named, pc.equal(groups["kind"], kind))))
    return pa.concat_tables(parts).sort_by([("kind", "ascending"), ("entity_id", "ascending")])


def _ranking(kind: Kind, entity_ids: pa.ChunkedArray, seed: int) -> np.ndarray:
    """The positions of `entity_ids` (sorted), in the order of their hashes."""
    hashes = (_stable_hash(f"{seed}:{kind}:{entity_id}") for entity_id in _values(entity_ids))
    return np.argsort(np.fromiter(hashes, np.uint64, len(entity_ids)), kind="stable")


def _values(column: pa.ChunkedArray) -> Iterator[str]:
    """The values one by one, with few of them in Python at once."""
    for start in range(0, len(column), VALUES_AT_ONCE):
        yield from column.slice(start, VALUES_AT_ONCE).to_pylist()


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
            late = prompts.select(["kind", "entity_id", "latest_event"]).filter(is_late)
            row = late.slice(0, 1).to_pylist()[0]
            raise DataError(
                f"{row['kind']} {row['entity_id']}: the prompt shows an event of {row['latest_event']}, "
                "which is not before history_cutoff"
            )


def make_plan(prompts: pa.Table, shard_size: int) -> pa.Table:
    """The plan of `prompts` (schema PROMPTS) in one table of schema PLAN; see `outline_plan` for its order.

    For plans that are small: a run writes its shards one after the other.
    """
    outline = outline_plan(prompts, shard_size)
    return pa.concat_tables([PLAN.empty_table(), *shards_in_full(outline, prompts)])


def _by_kind(entities: pa.Table, what: str) -> dict[Kind, pa.Table]:
    """The rows of each kind, in the order of `KINDS`. Raises `DataError` for any other kind."""
    reject_unknown_kinds(entities, what)
    return {kind: entities.filter(pc.equal(entities["kind"], kind)) for kind in KINDS}


def shards_of(plan: pa.Table) -> dict[str, pa.Table]:
    """The rows of each shard (slices of `plan`, not copies), in the order of the plan.

    Raises `DataError` if the rows of a shard do not stand together or are of two kinds.
    """
    lengths = run_lengths(plan["shard"])
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
    """Check `plan` (schema PLAN) and write it to `path`, atomically."""
    write_shards(shards_of(_checked(plan, PLAN, "plan")).values(), path)


def read_plan(path: Path, schema: pa.Schema = PLAN) -> pa.Table:
    """The columns `schema` (PLAN or OUTLINE) of the plan at `path`, checked.

    Raises `DataError` if it is missing, `CorruptPartError` if unreadable.
    """
    with _naming_unreadable(path):
        table = read_table(path, columns=schema.names).combine_chunks()
    return _checked(table, schema, str(path))


def is_plan_of(outline: pa.Table, path: Path) -> bool:
    """Whether the plan at `path` has the rows and shards of `outline`; raises as `read_plan` does.

    The prompts are not read: `prompt_hash` stands for them.
    """
    start = 0
    with _naming_unreadable(path), open_parquet(path) as file:
        for batch in file.iter_batches(columns=OUTLINE.names):
            expected = outline.select(OUTLINE.names).slice(start, batch.num_rows)
            if not pa.Table.from_batches([batch]).equals(expected):
                return False
            start += batch.num_rows
    return start == outline.num_rows


@contextmanager
def _naming_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no plan") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptPartError(f"{path}: not a readable plan: {error}") from error


def _checked(plan: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    plan = conform(plan, schema, what, unique=IDENTITY)
    shards_of(plan)
    return plan
