"""One worker of one core against two, with the real engine: the same shards, in turn."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pipeline.environment import ONE_THREAD
from pipeline.errors import GenerationError
from pipeline.stages import stage
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import committed_shards, read_manifest

logger = logging.getLogger(__name__)

# Drafts from pools that a worker fills itself would make its speed depend on its share of the texts.
SAME_WORK = ["drafter=none", "acceptance=strict", "cluster.cpus_per_worker=1"]
# Every worker has a full batch nearly to the end: half a batch takes more than half the time.
FULL_BATCHES = ["plan.shard_size=8", "engine.max_num_seqs=8"]


@dataclass(frozen=True)
class Timing:
    """One run: seconds from the first shard's start to the last part, and seconds of each shard."""

    num_workers: int
    seconds: float
    shard_sec: tuple[float, ...]
    num_rows: int


@dataclass(frozen=True)
class Speedup:
    """Runs with one and with two workers, in the order of the turns."""

    one: tuple[Timing, ...]
    two: tuple[Timing, ...]

    @property
    def ratios(self) -> list[float]:
        """Time of two workers over that of one, turn by turn: one half would be perfect."""
        return [two.seconds / one.seconds for one, two in zip(self.one, self.two, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return median(self.ratios)


def measure_speedup(overrides: list[str], data: Path, dataset: str, num_turns: int) -> Speedup:
    """Generate `overrides` with one worker and with two, `num_turns` times, into `data`."""
    found: dict[int, list[Timing]] = {1: [], 2: []}
    for turn in range(num_turns):
        for num_workers in (1, 2) if turn % 2 == 0 else (2, 1):
            run = DatasetLayout.of(data, dataset).run(f"turn-{turn}-workers-{num_workers}")
            words = [*SAME_WORK, *FULL_BATCHES, *overrides, f"paths.data={data}"]
            workers = f"{num_workers} worker{'s' if num_workers > 1 else ''}"
            with stage(f"turn {turn + 1} of {num_turns}: generating with {workers}"):
                _generate(words, run.root.name, num_workers)
            found[num_workers].append(_timing(run, num_workers))
            logger.info("%d workers: %.1f s", num_workers, found[num_workers][-1].seconds)
    return Speedup(tuple(found[1]), tuple(found[2]))


def _generate(overrides: list[str], run_id: str, num_workers: int) -> None:
    words = [*overrides, f"run_id={run_id}", f"cluster.num_workers={num_workers}"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.generate", *words],
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise GenerationError(f"{num_workers} workers: {line}")


def _timing(run: RunLayout, num_workers: int) -> Timing:
    spans, num_rows = shard_spans(run)
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return Timing(num_workers, seconds, tuple(end - start for start, end in spans), num_rows)


def shard_spans(run: RunLayout) -> tuple[list[tuple[float, float]], int]:
    """When each shard of `run` began and ended (Unix time), and the rows of all of them."""
    spans, num_rows = [], 0
    for shard in committed_shards(run):
        part = read_manifest(run, shard)
        if part.started_at is not None and part.finished_at is not None:
            spans.append((part.started_at.timestamp(), part.finished_at.timestamp()))
            num_rows += part.num_rows
    if not spans:
        raise GenerationError(f"{run.parts}: no part tells when it was written")
    return spans, num_rows
