"""The body of a worker's Ray actor: runs shards and commits their parts where the worker is.

Rows never pass through the driver: the worker reads its shard from the plan and writes the part, both
on storage that all machines share, and the driver sees a receipt of constant size. So the driver's
work does not grow with the texts.
"""

import logging
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import ray

from drafters.datastore import Datastore, StoreHeader
from drafters.datastore.format import entity_key
from pipeline.environment import memory_shortage
from pipeline.errors import (
    CorruptPartError,
    MachineError,
    ModelError,
    PipelineError,
    StorageError,
    UploadError,
)
from pipeline.generate.contract import Worker, WorkerProgress, WorkerSpec
from pipeline.generate.retry import joined, rows_to_keep, rows_to_write
from pipeline.generate.row_by_row import run_row_by_row, run_without
from pipeline.generate.run_log import LOG_FORMAT, redirect_output
from pipeline.plan_file import read_rows
from pipeline.sharing import origins, scope_of, with_shared_rows
from pipeline.storage.files import write_json
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import data_path
from pipeline.storage.parts import check_rows, commit_part
from pipeline.storage.pool_copies import local_pools

logger = logging.getLogger(__name__)
MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class ShardReceipt:
    """What the driver learns of a shard. `error` is one line, None if the part is committed."""

    num_rows: int
    num_failed: int
    progress: WorkerProgress | None
    error: str | None = None
    fatal: StorageError | None = None  # no other worker could do it either
    rows_are_innocent: bool = False  # the part could not be sent to the object store
    num_shared: int = 0  # rows that have the text, or the failure, of another one


@dataclass(frozen=True)
class StartReceipt:
    """How the start of a worker ended."""

    node_id: str  # Ray's name of the machine
    pid: int
    error: PipelineError | None  # None: the worker is up


def one_line(error: BaseException) -> str:
    """`error` as one line of bounded length; a `PipelineError` is one already."""
    text = " ".join(str(error).split())
    line = text if isinstance(error, PipelineError) and text else f"{type(error).__name__}: {text}"
    return line if len(line) <= MAX_REASON_CHARS else line[: MAX_REASON_CHARS - 3] + "..."


def read_shard(layout: RunLayout, shard: str) -> pa.Table:
    """The rows of `shard` in plan.parquet, schema PLAN; nothing else of the file is read."""
    return read_rows(layout.plan, shard)


class ShardServer:
    """A worker in its own process. What the worker raises is logged and returned, never raised."""

    def __init__(
        self, worker_class: type[Worker], spec: WorkerSpec, layout: RunLayout, finished_parts: list[str]
    ) -> None:
        redirect_output(spec.run_log)
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, force=True)
        self._spec = spec
        self._layout = layout
        self._worker: Worker | None = None
        self._start_error: PipelineError | None = None
        try:
            self._worker = worker_class(spec, finished_parts)
        except Exception as error:
            logger.exception("the worker could not start")
            self._start_error = self._as_start_error(error)

    def _as_start_error(self, error: Exception) -> PipelineError:
        if isinstance(error, PipelineError):
            return error
        line = f"{self._spec.model_path}: the worker could not start: {one_line(error)}"
        engine = self._spec.settings.engine
        shortage = memory_shortage(error, engine.gpu_memory_utilization, engine.cpu_kv_cache_gib * 2**30)
        return ModelError(line) if shortage is None else MachineError(f"{shortage}; {line}")

    def started(self) -> StartReceipt:
        """Answers once the worker is up, or has failed to start."""
        return StartReceipt(ray.get_runtime_context().get_node_id(), os.getpid(), self._start_error)

    def run_shard(self, shard: str, bad_rows: dict[int, str], row_by_row: bool) -> ShardReceipt:
        """Generate and commit `shard`; see `pipeline.generate.row_by_row` for `bad_rows`.

        These count the rows that have a text of their own.
        """
        try:
            return self._run_shard(shard, bad_rows, row_by_row)
        except Exception as error:
            logger.exception("shard %s failed", shard)
            is_upload = isinstance(error, UploadError)
            fatal = error if isinstance(error, StorageError) and not is_upload else None
            return ShardReceipt(0, 0, None, one_line(error), fatal, is_upload)

    def _run_shard(self, shard: str, bad_rows: dict[int, str], row_by_row: bool) -> ShardReceipt:
        started_at = datetime.now(UTC)
        worker = self._running_worker()
        rows = read_shard(self._layout, shard)
        kept = rows_to_keep(self._layout, shard, rows, self._spec)
        missing = rows_to_write(rows, kept)
        shared_from = self._shared_from(missing)
        own = missing.filter(pa.array(shared_from == np.arange(missing.num_rows)))
        if row_by_row:
            result = run_row_by_row(worker, self._layout, shard, own, bad_rows)
        else:
            result = run_without(worker, shard, own, bad_rows)
        result = joined(kept, with_shared_rows(result, missing, shared_from))
        if result.shard != shard:
            raise CorruptPartError(f"shard {shard}: the worker answered with {result.shard}")
        check_rows(rows, result.knowledge, result.failed, f"shard {shard}")
        commit_part(self._layout, result, self._spec.fingerprint, started_at, socket.gethostname())
        num_shared = missing.num_rows - own.num_rows
        return ShardReceipt(
            result.knowledge.num_rows, result.failed.num_rows, self.progress(), num_shared=num_shared
        )

    def _shared_from(self, rows: pa.Table) -> np.ndarray:
        """For each of `rows` the number of the row whose text it has."""
        if not self._spec.shares_texts:
            return np.arange(rows.num_rows)
        return origins(rows, scope_of(self._spec.settings), self._has_no_earlier_text(rows))

    def _has_no_earlier_text(self, rows: pa.Table) -> np.ndarray:
        """For each of `rows` whether the pools hold no text of its entity."""
        if self._spec.datastore is None:
            return np.ones(rows.num_rows, dtype=bool)
        folder = local_pools(data_path(self._spec.datastore))
        pools = Datastore(folder, StoreHeader.read(folder))
        entities = zip(rows["kind"].to_pylist(), rows["entity_id"].to_pylist(), strict=True)
        return np.array(
            [pools.previous(kind, entity_key(name)) is None for kind, name in entities], dtype=bool
        )

    def progress(self) -> WorkerProgress | None:
        """The worker's running totals, None if it cannot tell."""
        try:
            return self._running_worker().progress()
        except Exception:
            logger.exception("the worker could not tell its progress")
            return None

    def close(self) -> None:
        """Release the engine; keep what its drafter learned (of several workers, the last one's)."""
        if self._worker is None:
            return
        learned = self._worker.close()
        if learned is not None:
            write_json(learned, self._layout.calibration)

    def _running_worker(self) -> Worker:
        if self._worker is None:
            raise ModelError("the worker is not running")
        return self._worker
