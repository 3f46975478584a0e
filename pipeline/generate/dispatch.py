"""From the plan to finished parts: the missing shards are run on Ray workers, then everything is checked."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace

import pyarrow as pa

from pipeline.errors import DataError, GenerationError
from pipeline.failure_bound import KindCounts, count_kinds, first_objection
from pipeline.generate.contract import Worker, WorkerProgress, WorkerSpec
from pipeline.generate.progress import NO_PROGRESS, OnProgress, ProgressSnapshot, ProgressTracker
from pipeline.generate.retry import shards_with_failures
from pipeline.generate.shard_queue import ShardQueue
from pipeline.generate.time_series import TimeSeries
from pipeline.printable import plural
from pipeline.schemas import FAILED, conform
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from pipeline.storage.lock import exclusive
from pipeline.storage.node_cache import appendable
from pipeline.storage.parts import finished_shards, planned_shards, read_failures, remove_leftovers

MAX_SHARDS_NAMED = 5


@dataclass(frozen=True)
class GenerationOutcome:
    """What became of a plan. Rows count the whole run; progress and seconds only this session."""

    num_rows_planned: int
    num_rows: int  # knowledge rows in finished parts
    num_failed: int  # failed rows in finished parts
    num_shards_run: int  # shards that this session had to run
    unfinished: dict[str, str]  # shard -> last reason
    progress: WorkerProgress
    decode_sec: float  # from the first ready worker to the last shard
    kinds: list[KindCounts] = field(default_factory=list)  # of the entities of the plan and earlier failures

    def require_complete(self, max_failed_fraction: float) -> None:
        """Raise `GenerationError` if shards are unfinished, or for the objection of a kind."""
        if self.unfinished:
            raise GenerationError(_unfinished_line(self.unfinished))
        objection = first_objection(self.kinds, max_failed_fraction)
        if objection is not None:
            raise GenerationError(f"{objection}; see failed.parquet")


def generate_shards(
    plan: pa.Table,
    spec: WorkerSpec,
    layout: RunLayout,
    worker_class: type[Worker],
    on_progress: OnProgress | None = None,
    earlier_failures: pa.Table | None = None,
) -> GenerationOutcome:
    """`run_shards`, then `GenerationOutcome.require_complete` with the run's `max_failed_fraction`.

    Holds the run's lock; raises `BusyError` if another process works on this run.
    """
    with exclusive(layout.root):
        outcome = run_shards(plan, spec, layout, worker_class, on_progress, earlier_failures)
    outcome.require_complete(spec.settings.max_failed_fraction)
    return outcome


def run_shards(
    plan: pa.Table,
    spec: WorkerSpec,
    layout: RunLayout,
    worker_class: type[Worker],
    on_progress: OnProgress | None = None,
    earlier_failures: pa.Table | None = None,
) -> GenerationOutcome:
    """Run the shards of `plan` that are not done, and write `failed.parquet`.

    `plan` needs the columns PLAN_KEYS only: workers read their rows from `layout.plan`, which must
    hold the same plan, on storage that all workers share. `earlier_failures` (schema FAILED) are rows of
    earlier stages that `failed.parquet` shall hold too. If no shard is missing, neither Ray nor an
    engine is started. The caller holds the run's lock (`exclusive`), from before it wrote the plan.

    Raises `ConfigError` for a reused run id or a cluster that cannot hold the workers, `ModelError` if
    no worker can start, `StorageError` if results cannot be kept (the disk is full). Shards that fail are
    named in the outcome; whatever happens, finished parts stay and a rerun resumes.
    """
    layout = RunLayout(layout.root.resolve())
    if not layout.plan.exists():
        raise DataError(f"{layout.plan}: not there; the plan is written before shards are run")
    planned = {shard: rows.num_rows for shard, rows in planned_shards(plan).items()}
    finished = finished_shards(layout, spec.fingerprint, plan, spec.settings)
    if spec.settings.retry_failed:
        finished -= shards_with_failures(layout, finished)
    remove_leftovers(layout)
    missing = [shard for shard in planned if shard not in finished]
    queue = ShardQueue(missing, spec.settings.cluster.max_shard_attempts)
    last = None
    if missing:
        try:
            last = _run_missing(planned, finished, queue, spec, layout, worker_class, on_progress)
        finally:
            remove_leftovers(layout)  # of workers that were killed while they wrote
        finished = finished_shards(layout, spec.fingerprint, plan, spec.settings)
    return _conclude(plan, planned, finished, queue, layout, last, earlier_failures)


def _run_missing(
    planned: dict[str, int],
    finished: set[str],
    queue: ShardQueue,
    spec: WorkerSpec,
    layout: RunLayout,
    worker_class: type[Worker],
    on_progress: OnProgress | None,
) -> ProgressSnapshot:
    # Imported only here: without a missing shard nothing of Ray is loaded.
    from pipeline.generate.ray_cluster import ray_session, size_pool, with_gpus
    from pipeline.generate.worker_pool import WorkerPool

    settings = spec.settings
    with (
        appendable(layout.log) as log,
        appendable(layout.progress) as progress,
        ray_session(settings.cluster, log) as found,
    ):
        spec = replace(spec, run_log=str(log))
        num_gpus = settings.engine.tensor_parallel_size
        nodes = with_gpus(settings.cluster, num_gpus, found)
        size = size_pool(settings.cluster, num_gpus, nodes)
        size = replace(size, num_workers=min(size.num_workers, len(planned) - len(finished)))
        num_before = sum(planned[shard] for shard in finished)
        tracker = ProgressTracker(sum(planned.values()), num_before, size.num_workers)
        pool = WorkerPool(worker_class, spec, layout, size, queue, tracker, finished)
        last = tracker.snapshot()

        def report(snapshot: ProgressSnapshot) -> None:
            nonlocal last
            last = snapshot
            series.update(snapshot)
            if on_progress is not None:
                on_progress(snapshot)

        with closing(TimeSeries(progress)) as series:
            pool.run(report)
        return last


def _conclude(
    plan: pa.Table,
    planned: dict[str, int],
    finished: set[str],
    queue: ShardQueue,
    layout: RunLayout,
    last: ProgressSnapshot | None,
    earlier_failures: pa.Table | None,
) -> GenerationOutcome:
    """Account for every planned row: rows in = rows out + failures + rows of unfinished shards."""
    failures = read_failures(layout, [shard for shard in planned if shard in finished])
    earlier = FAILED.empty_table() if earlier_failures is None else earlier_failures
    write_parquet(pa.concat_tables([conform(earlier, FAILED, "failed rows"), failures]), layout.failed)
    unseen = f"its part is missing from {layout.parts} or broken; do all workers share this folder?"
    unfinished = {shard: queue.unfinished.get(shard, unseen) for shard in planned if shard not in finished}
    num_finished = sum(planned[shard] for shard in finished)
    failed_of = Counter(failures["kind"].to_pylist())
    kinds = [
        replace(counts, num_failed=failed_of[counts.kind]) for counts in count_kinds(plan, plan, earlier)
    ]
    return GenerationOutcome(
        num_rows_planned=sum(planned.values()),
        num_rows=num_finished - failures.num_rows,
        num_failed=failures.num_rows,
        num_shards_run=queue.num_shards,
        unfinished=unfinished,
        progress=NO_PROGRESS if last is None else last.totals,
        decode_sec=0.0 if last is None else last.decode_sec,
        kinds=kinds,
    )


def _unfinished_line(unfinished: dict[str, str]) -> str:
    names = list(unfinished)
    more = f" and {len(names) - MAX_SHARDS_NAMED} more" if len(names) > MAX_SHARDS_NAMED else ""
    are = plural(len(names), "shard is", "shards are")
    return (
        f"{are} unfinished: {', '.join(names[:MAX_SHARDS_NAMED])}{more}; "
        f"last reason: {unfinished[names[-1]]}; what is finished is kept, run again to resume"
    )
