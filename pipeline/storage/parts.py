"""Finished shards of a run: a part is `parts/<shard>.parquet` and its manifest `parts/<shard>.json`.

The manifest is written last, by rename. A shard is done when its manifest parses, carries the run's
fingerprint and agrees with the Parquet file (sha256, rows) and with the plan (entities, prompts).
Anything else is as if the shard had never run: it is done again, and the new part replaces the old
file by rename.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError, CorruptPartError, DataError
from pipeline.generate.contract import ShardResult
from pipeline.printable import plural
from pipeline.schemas import FAILED, KNOWLEDGE, PLAN, conform
from pipeline.settings import RunSettings
from pipeline.storage.files import TEMPORARY_PREFIX, sha256_of_file, write_json, write_parquet
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import is_remote, open_parquet, parquet_dataset, read_table
from pipeline.storage.run_settings import differing_settings

logger = logging.getLogger(__name__)

ENTITY = ("kind", "entity_id")
# The columns of the plan that decide whether a part is done.
PLAN_KEYS = pa.schema([PLAN.field(name) for name in ("shard", *ENTITY, "prompt_hash")])
NUM_CHECK_THREADS = 8  # hashing keeps the cores busy
NUM_REQUESTS = 32  # at once, to an object store: each one mostly waits


class PartManifest(BaseModel):
    """Content of `parts/<shard>.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    shard: str
    fingerprint: str
    sha256: str = Field(description="of the Parquet file, hex")
    num_rows: int = Field(ge=0, description="rows of the Parquet file")
    failed: list[dict[str, Any]] = Field(description="rows of schema FAILED")
    started_at: datetime | None = Field(default=None, description="when a worker took the shard, UTC")
    finished_at: datetime | None = Field(default=None, description="when its rows were complete, UTC")
    node: str | None = Field(default=None, description="host name of the machine that wrote it")

    def failed_table(self) -> pa.Table:
        """The shard's failed rows, schema FAILED; raises `CorruptPartError`."""
        try:
            table = pa.Table.from_pylist(self.failed, schema=FAILED)
            return conform(table, FAILED, f"failed rows of shard {self.shard}", unique=ENTITY)
        except (pa.ArrowException, DataError, TypeError, ValueError) as error:
            raise CorruptPartError(str(error).splitlines()[0]) from error


def commit_part(
    layout: RunLayout,
    result: ShardResult,
    fingerprint: str,
    started_at: datetime | None = None,
    node: str | None = None,
) -> None:
    """Write the part of `result.shard` and mark it done. An earlier part of the shard is replaced.

    `started_at` and `node` are kept in the manifest, so that the report can name slow shards.
    """
    shard, finished_at = result.shard, datetime.now(UTC)
    knowledge = conform(result.knowledge, KNOWLEDGE, f"shard {shard}", unique=ENTITY)
    failed = conform(result.failed, FAILED, f"failed rows of shard {shard}", unique=ENTITY)
    sha256 = write_parquet(knowledge, layout.part(shard))
    manifest = PartManifest(
        shard=shard,
        fingerprint=fingerprint,
        sha256=sha256,
        num_rows=knowledge.num_rows,
        failed=failed.to_pylist(),
        started_at=started_at,
        finished_at=finished_at,
        node=node,
    )
    write_json(manifest.model_dump(mode="json"), layout.part_manifest(shard))


def planned_shards(plan: pa.Table) -> dict[str, pa.Table]:
    """The rows of each shard (schema PLAN_KEYS), in the plan's order of shards.

    Raises `DataError` if an entity is planned twice.
    """
    missing = [name for name in PLAN_KEYS.names if name not in plan.column_names]
    if missing:
        raise DataError(f"plan: columns missing {missing}")
    keys = conform(plan.select(PLAN_KEYS.names), PLAN_KEYS, "plan", unique=ENTITY)
    shards = keys["shard"].unique()
    numbers = pc.index_in(keys["shard"], value_set=shards).to_numpy()
    if np.any(np.diff(numbers) < 0):  # of another program: the rows of a shard do not stand together
        keys = keys.take(np.argsort(numbers, kind="stable"))
    counts = np.bincount(numbers, minlength=len(shards)).tolist()
    ends = accumulate(counts)
    return {
        shard: keys.slice(end - count, count)
        for shard, count, end in zip(shards.to_pylist(), counts, ends, strict=True)
    }


def check_rows(planned: pa.Table, knowledge: pa.Table, failed: pa.Table, what: str) -> None:
    """Raise `CorruptPartError` unless `knowledge` holds exactly the planned rows that are not in `failed`.

    Entities are compared by kind and id; knowledge must answer the planned prompt (`prompt_hash`).
    """
    if knowledge.num_rows + failed.num_rows != planned.num_rows:
        counts = f"{knowledge.num_rows} rows and {failed.num_rows} failures for {planned.num_rows}"
        raise CorruptPartError(f"{what}: {counts} planned rows")
    remaining = planned.filter(pc.invert(pc.is_in(_keys(planned), value_set=_keys(failed))))
    if not _sorted_keys(remaining).equals(_sorted_keys(knowledge)):
        raise CorruptPartError(f"{what}: its entities or prompts are not those of the plan")


def _keys(table: pa.Table) -> pa.Array:
    keys = pc.binary_join_element_wise(*[table[name] for name in ENTITY], "/")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


def _sorted_keys(table: pa.Table) -> pa.Table:
    columns = [*ENTITY, "prompt_hash"]
    return table.select(columns).sort_by([(name, "ascending") for name in columns]).combine_chunks()


def read_manifest(layout: RunLayout, shard: str) -> PartManifest:
    """The manifest of `shard`; raises `CorruptPartError` if it is missing or unreadable."""
    path = layout.part_manifest(shard)
    try:
        manifest = PartManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise CorruptPartError(f"{path}: {where or 'content'}: {first['msg']}") from error
    except OSError as error:
        raise CorruptPartError(f"{path}: {error.strerror or 'not there'}") from error
    if manifest.shard != shard:
        raise CorruptPartError(f"{path}: speaks of shard {manifest.shard}")
    return manifest


def check_part(layout: RunLayout, manifest: PartManifest, planned: pa.Table) -> None:
    """Raise `CorruptPartError` naming the file unless the part agrees with its manifest and the plan."""
    path = layout.part(manifest.shard)
    try:
        if sha256_of_file(path) != manifest.sha256:
            raise CorruptPartError(f"{path}: sha256 is not that of its manifest")
        knowledge = read_table(path, columns=[*ENTITY, "prompt_hash"])
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error
    if knowledge.num_rows != manifest.num_rows:
        raise CorruptPartError(f"{path}: {knowledge.num_rows} rows, its manifest says {manifest.num_rows}")
    check_rows(planned, knowledge, manifest.failed_table(), str(path))


def finished_shards(
    layout: RunLayout, fingerprint: str, plan: pa.Table, settings: RunSettings | None = None
) -> set[str]:
    """The shards of `plan` that are done. A part that contradicts itself is logged and not among them.

    Raises `ConfigError` if the run holds parts of another fingerprint (naming the settings that
    differ, if `settings` are given and the run's manifest knows its own), or parts of shards that the
    plan does not have. Nothing is written.
    """
    planned = planned_shards(plan)
    reject_reused_run(layout, fingerprint, settings)
    _reject_unplanned(layout, set(planned))
    with _threads(layout) as threads:
        done = threads.map(lambda shard: _is_done(layout, shard, planned[shard]), planned)
        return {shard for shard, is_done in zip(planned, done, strict=True) if is_done}


def _threads(layout: RunLayout) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(NUM_REQUESTS if is_remote(layout.root) else NUM_CHECK_THREADS)


def reject_reused_run(layout: RunLayout, fingerprint: str, settings: RunSettings | None = None) -> None:
    """Raise `ConfigError` if the run holds a part of another fingerprint. Cheap; reads manifests only."""

    def readable_manifest(shard: str) -> PartManifest | None:
        try:
            return read_manifest(layout, shard)
        except CorruptPartError:
            return None  # `finished_shards` reports it

    with _threads(layout) as threads:
        for manifest in threads.map(readable_manifest, committed_shards(layout)):
            if manifest is not None:
                _reject_other_fingerprint(layout, manifest, fingerprint, settings)


def _is_done(layout: RunLayout, shard: str, planned: pa.Table) -> bool:
    if not layout.part_manifest(shard).exists():
        return False
    try:
        check_part(layout, read_manifest(layout, shard), planned)
    except CorruptPartError as error:
        logger.warning("shard %s counts as not done: %s", shard, error)
        return False
    return True


def _reject_other_fingerprint(
    layout: RunLayout, manifest: PartManifest, fingerprint: str, settings: RunSettings | None
) -> None:
    if manifest.fingerprint == fingerprint:
        return
    changes = differing_settings(layout.manifest, manifest.fingerprint, settings)
    detail = f" ({changes})" if changes else ""
    raise ConfigError(
        f"run_id={layout.root.name}: it holds parts that other settings or data made{detail}; "
        "choose another run_id"
    )


def _reject_unplanned(layout: RunLayout, planned: set[str]) -> None:
    stems = {path.stem for path in layout.parts.glob("*") if not path.name.startswith(TEMPORARY_PREFIX)}
    unplanned = sorted(stems - planned)
    if unplanned:
        raise ConfigError(
            f"run_id={layout.root.name}: it holds {plural(len(unplanned), 'part')} that the plan lacks, "
            f"for example {unplanned[0]}; was limit or plan changed? choose another run_id"
        )


def remove_leftovers(layout: RunLayout) -> None:
    """Delete the temporary files of killed runs."""
    for folder in (layout.root, layout.parts):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink(missing_ok=True)


def committed_shards(layout: RunLayout) -> list[str]:
    """Names of the shards that have a manifest, sorted."""
    return sorted(
        path.stem for path in layout.parts.glob("*.json") if not path.name.startswith(TEMPORARY_PREFIX)
    )


def knowledge_dataset(layout: RunLayout) -> ds.Dataset:
    """The rows of all finished parts, read when asked for (schema KNOWLEDGE)."""
    return parquet_dataset([layout.part(shard) for shard in committed_shards(layout)], KNOWLEDGE)


def read_knowledge(layout: RunLayout) -> pa.Table:
    """All finished rows, each entity exactly once; raises `CorruptPartError` or `DataError`."""
    for shard in committed_shards(layout):
        _check_num_rows(layout.part(shard), read_manifest(layout, shard))
    return conform(knowledge_dataset(layout).to_table(), KNOWLEDGE, str(layout.parts), unique=ENTITY)


def _check_num_rows(path: Path, manifest: PartManifest) -> None:
    try:
        num_rows = open_parquet(path).metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error
    if num_rows != manifest.num_rows:
        raise CorruptPartError(f"{path}: {num_rows} rows, its manifest says {manifest.num_rows}")


def read_failures(layout: RunLayout, shards: list[str]) -> pa.Table:
    """The failed rows of finished `shards`, schema FAILED, in this order."""
    with _threads(layout) as threads:
        tables = list(threads.map(lambda shard: read_manifest(layout, shard).failed_table(), shards))
    return pa.concat_tables([FAILED.empty_table(), *tables])
