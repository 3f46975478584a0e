"""Measured costs of a run apart from decoding, each as a line over the size of the run.

Every operation is the pipeline's own code on real files; only the texts are made up. Costs of the driver
are paid one after the other by one process; those of the workers are shared by all of them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.generate.contract import SourceCounts, WorkerProgress
from pipeline.generate.progress import ProgressTracker
from pipeline.generate.shard_queue import ShardQueue
from pipeline.outline import outline_plan, shards_in_full
from pipeline.plan_file import read_rows, write_shards
from pipeline.scale.synthetic import finished, prompt_batches
from pipeline.schemas import PROMPTS
from pipeline.spool import spooled
from pipeline.storage.files import sha256_of_rows
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import commit_part, finished_shards, planned_shards

logger = logging.getLogger(__name__)

FINGERPRINT = "0" * 16
NUM_SAMPLED_SHARDS = 20
MAX_COMMITTED = 500
NUM_WORKERS = (10, 100, 1000)
Unit = Literal["row", "shard", "worker"]
Where = Literal["driver", "worker"]


@dataclass(frozen=True)
class Cost:
    """Seconds of one operation at several sizes, and the line through them and the origin."""

    name: str
    where: Where
    unit: Unit  # what `sizes` count
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def per_unit_sec(self) -> float:
        """The slope by least squares: the largest size counts most."""
        sizes, seconds = np.array(self.sizes, float), np.array(self.seconds)
        return float(sizes @ seconds / (sizes @ sizes))

    @property
    def growth(self) -> float:
        """Cost per unit at the largest size over that at the smallest: 1 if the line holds."""
        return (self.seconds[-1] / self.sizes[-1]) / (self.seconds[0] / self.sizes[0])


class _Measured:
    """Collects `(size, seconds)` by operation."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Where, Unit], list[tuple[int, float]]] = {}

    def note(self, name: str, where: Where, unit: Unit, size: int, seconds: float) -> None:
        """Keep one measurement."""
        self._found.setdefault((name, where, unit), []).append((size, seconds))
        logger.info("%-32s %9d %ss %10.4f s", name, size, unit, seconds)

    @contextmanager
    def timed(self, name: str, where: Where, unit: Unit, size: int) -> Iterator[None]:
        """Measure the block."""
        started = time.perf_counter()
        yield
        self.note(name, where, unit, size, time.perf_counter() - started)

    def costs(self) -> list[Cost]:
        """A line for each operation."""
        return [
            Cost(*key, sizes=tuple(size for size, _ in found), seconds=tuple(sec for _, sec in found))
            for key, found in self._found.items()
        ]


def measure_costs(folder: Path, num_rows: list[int], shard_size: int) -> list[Cost]:
    """Plan, read, commit and check runs of these sizes below `folder`; keep the books of many workers."""
    measured = _Measured()
    for size in num_rows:
        _measure_run(RunLayout(folder / f"rows-{size}"), size, shard_size, measured)
    for num_workers in NUM_WORKERS:
        _measure_books(num_workers, measured)
    return measured.costs()


def _measure_run(layout: RunLayout, num_rows: int, shard_size: int, measured: _Measured) -> None:
    rows = spooled(prompt_batches(num_rows), PROMPTS, layout.root)
    with measured.timed("order and cut the plan", "driver", "row", num_rows):
        plan = outline_plan(rows, shard_size)
    with measured.timed("name the run", "driver", "row", num_rows):
        sha256_of_rows(plan)
    with measured.timed("write the plan", "driver", "row", num_rows):
        write_shards(shards_in_full(plan, rows), layout.plan)
    del rows
    with measured.timed("index the plan", "driver", "row", num_rows):
        planned = planned_shards(plan)
    _measure_reading(layout, list(planned), num_rows, measured)
    _measure_parts(layout, plan, list(planned)[:MAX_COMMITTED], measured)
    _measure_queue(list(planned), measured)


def _measure_reading(layout: RunLayout, shards: list[str], num_rows: int, measured: _Measured) -> None:
    """What a worker waits for its rows: the first time, when it opens the plan, and from then on."""
    seconds = []
    for shard in shards[:: max(1, len(shards) // NUM_SAMPLED_SHARDS)]:
        started = time.perf_counter()
        read_rows(layout.plan, shard)
        seconds.append(time.perf_counter() - started)
    measured.note("open the plan, read a shard", "worker", "row", num_rows, seconds[0])
    measured.note("read a further shard", "worker", "row", num_rows, float(np.median(seconds[1:])))


def _measure_parts(layout: RunLayout, plan: pa.Table, shards: list[str], measured: _Measured) -> None:
    """Write the parts of `shards`, as workers do, and check them, as the driver does at the end."""
    seconds = 0.0
    for shard in shards:
        result = finished(shard, read_rows(layout.plan, shard), FINGERPRINT)
        started = time.perf_counter()
        commit_part(layout, result, FINGERPRINT)
        seconds += time.perf_counter() - started
    measured.note("write a part", "worker", "shard", len(shards), seconds)
    committed = plan.filter(pa.compute.is_in(plan["shard"], value_set=pa.array(shards)))
    with measured.timed("check the finished parts", "driver", "shard", len(shards)):
        done = finished_shards(layout, FINGERPRINT, committed)
    assert done == set(shards)


def _measure_queue(shards: list[str], measured: _Measured) -> None:
    with measured.timed("queue", "driver", "shard", len(shards)):
        queue = ShardQueue(shards, max_attempts=3)
        while (shard := queue.take(worker_is_idle=True)) is not None:
            queue.runs_alone(shard)
            queue.done(shard)


def _measure_books(num_workers: int, measured: _Measured) -> None:
    """One round of the driver's loop: an answer of each worker, and the sum over all of them."""
    progress = WorkerProgress(
        num_rows=100,
        num_output_tokens=25_000,
        num_decode_steps=10_000,
        num_draft_tokens=30_000,
        num_accepted_tokens=15_000,
        num_relaxed_tokens=500,
        sources={name: SourceCounts(1000, 500) for name in ("own", "entity", "group", "domain")},
    )
    tracker = ProgressTracker(10**8, 0, num_workers)
    for worker in range(num_workers):
        tracker.worker_ready(worker)
    with measured.timed("sum of the workers' progress", "driver", "worker", num_workers):
        for worker in range(num_workers):
            tracker.update(worker, progress)
        tracker.snapshot()
