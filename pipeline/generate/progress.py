"""How far the run is: totals over workers that come and go, and how they are shown."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipeline.generate.contract import SourceCounts, WorkerProgress
from pipeline.stages import duration

logger = logging.getLogger(__name__)

PLAIN_INTERVAL_SEC = 30.0
RATE_WINDOW_SEC = 30.0
NO_PROGRESS = WorkerProgress(0, 0, 0, 0, 0, 0, {})
Clock = Callable[[], float]
OnProgress = Callable[["ProgressSnapshot"], None]


def add_progress(a: WorkerProgress, b: WorkerProgress) -> WorkerProgress:
    """The sum of two workers' totals and of their batches; their mean price."""
    none = SourceCounts(0, 0)
    sources = {}
    for name in sorted(a.sources | b.sources):
        x, y = a.sources.get(name, none), b.sources.get(name, none)
        sources[name] = SourceCounts(
            x.num_draft_tokens + y.num_draft_tokens, x.num_accepted_tokens + y.num_accepted_tokens
        )
    return WorkerProgress(
        a.num_rows + b.num_rows,
        a.num_output_tokens + b.num_output_tokens,
        a.num_decode_steps + b.num_decode_steps,
        a.num_draft_tokens + b.num_draft_tokens,
        a.num_accepted_tokens + b.num_accepted_tokens,
        a.num_relaxed_tokens + b.num_relaxed_tokens,
        sources,
        a.num_decoded_tokens + b.num_decoded_tokens,
        a.num_engine_steps + b.num_engine_steps,
        a.drafter_sec + b.drafter_sec,
        a.num_running + b.num_running,
        _mean_price(a, b),
    )


def _mean_price(a: WorkerProgress, b: WorkerProgress) -> float | None:
    """Weighted by the sequences that pay it; None if neither knows a price."""
    priced = [(x.price, x.num_running) for x in (a, b) if x.price is not None]
    num_running = sum(weight for _, weight in priced)
    if not num_running:
        return priced[0][0] if priced else None
    return sum(price * weight for price, weight in priced) / num_running


@dataclass(frozen=True)
class ProgressSnapshot:
    """The run at one moment. `totals` count this session only; rows count what earlier ones finished too."""

    num_rows_total: int
    num_rows_done: int  # finished earlier, committed now, or generated in a shard that still runs
    num_rows_failed: int  # of the rows committed in this session
    num_workers: int  # wanted
    num_workers_ready: int
    totals: WorkerProgress
    elapsed_sec: float
    decode_sec: float  # since the first worker was ready
    tokens_per_sec: float | None  # over the last RATE_WINDOW_SEC; None before two readings
    eta_sec: float | None

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens written by one decode step; None before the first."""
        steps = self.totals.num_decode_steps
        return self.totals.num_output_tokens / steps if steps else None


class _Tally:
    """One worker process: its latest totals, and how many of its rows are committed."""

    def __init__(self) -> None:
        self.latest = NO_PROGRESS
        self.num_rows_committed = 0

    def update(self, progress: WorkerProgress) -> None:
        if progress.num_decode_steps >= self.latest.num_decode_steps:  # answers may overtake each other
            self.latest = progress

    @property
    def num_rows_under_way(self) -> int:
        return max(0, self.latest.num_rows - self.num_rows_committed)


class ProgressTracker:
    """Sums over worker processes. A lost one keeps its tokens, which were generated, but not its
    uncommitted rows, which will be generated again."""

    def __init__(
        self, num_rows_total: int, num_rows_before: int, num_workers: int, clock: Clock = time.monotonic
    ) -> None:
        self._num_rows_total = num_rows_total
        self._num_rows_before = num_rows_before
        self._num_workers = num_workers
        self._clock = clock
        self._started_at = clock()
        self._ready_at: float | None = None
        self._retired = NO_PROGRESS
        self._live: dict[int, _Tally] = {}
        self._num_rows_committed = 0
        self._num_rows_failed = 0
        self._readings: deque[tuple[float, int]] = deque()  # (time, output tokens), at most a window old

    def worker_ready(self, worker: int) -> None:
        """Worker process `worker` (a number never used twice) can take shards."""
        self._live[worker] = _Tally()
        if self._ready_at is None:
            self._ready_at = self._clock()

    def worker_lost(self, worker: int) -> None:
        """Worker process `worker` is gone, or was never ready."""
        tally = self._live.pop(worker, None)
        if tally is not None:
            stopped = replace(tally.latest, num_running=0, price=None)
            self._retired = add_progress(self._retired, stopped)

    def update(self, worker: int, progress: WorkerProgress) -> None:
        """The totals that `worker` reports; ignored if it is gone."""
        if worker in self._live:
            self._live[worker].update(progress)

    def shard_done(self, worker: int, num_rows: int, num_failed: int, num_shared: int = 0) -> None:
        """`worker` has committed a shard of `num_rows` texts and `num_failed` failed rows.

        `num_shared` of them it did not have to generate.
        """
        self._num_rows_committed += num_rows + num_failed
        self._num_rows_failed += num_failed
        if worker in self._live:
            self._live[worker].num_rows_committed += max(0, num_rows - num_shared)

    def snapshot(self) -> ProgressSnapshot:
        """The run now."""
        now = self._clock()
        totals = self._retired
        for tally in self._live.values():
            totals = add_progress(totals, tally.latest)
        num_done = min(self._num_rows_total, self._num_rows_before + self._num_rows_of_session())
        decode_sec = 0.0 if self._ready_at is None else now - self._ready_at
        return ProgressSnapshot(
            num_rows_total=self._num_rows_total,
            num_rows_done=num_done,
            num_rows_failed=self._num_rows_failed,
            num_workers=self._num_workers,
            num_workers_ready=len(self._live),
            totals=totals,
            elapsed_sec=now - self._started_at,
            decode_sec=decode_sec,
            # Of unfinished texts too, where the drafter tells: the first text may take a minute.
            tokens_per_sec=self._rate(now, max(totals.num_output_tokens, totals.num_decoded_tokens)),
            eta_sec=self._eta(num_done, decode_sec),
        )

    def _num_rows_of_session(self) -> int:
        return self._num_rows_committed + sum(tally.num_rows_under_way for tally in self._live.values())

    def _rate(self, now: float, num_tokens: int) -> float | None:
        if self._ready_at is None:
            return None
        self._readings.append((now, num_tokens))
        while len(self._readings) > 2 and now - self._readings[1][0] >= RATE_WINDOW_SEC:
            self._readings.popleft()
        since, before = self._readings[0]
        return (num_tokens - before) / (now - since) if now > since else None

    def _eta(self, num_done: int, decode_sec: float) -> float | None:
        num_here = num_done - self._num_rows_before
        if num_here <= 0 or decode_sec <= 0:
            return None
        return (self._num_rows_total - num_done) * decode_sec / num_here


def starting_line(snapshot: ProgressSnapshot, model: str) -> str:
    """What is said while no worker is ready."""
    count = snapshot.num_workers
    return f"starting {count} worker{'s' if count != 1 else ''}: loading model {model}"


def rate_line(snapshot: ProgressSnapshot) -> str:
    """Speed, acceptance length and time left in a few words."""
    rate = "-" if snapshot.tokens_per_sec is None else f"{snapshot.tokens_per_sec:.0f}"
    length = "-" if snapshot.acceptance_length is None else f"{snapshot.acceptance_length:.2f}"
    return f"{rate} tokens/s, {length} tokens/step, ETA {duration(snapshot.eta_sec)}"


def plain_line(snapshot: ProgressSnapshot, model: str) -> str:
    """The run in one line, for a log."""
    if snapshot.num_workers_ready == 0 and snapshot.decode_sec == 0:
        return f"{starting_line(snapshot, model)} ({duration(snapshot.elapsed_sec)})"
    done, total = snapshot.num_rows_done, snapshot.num_rows_total
    failed = f", {snapshot.num_rows_failed} failed" if snapshot.num_rows_failed else ""
    return f"{done}/{total} rows ({done / max(1, total):.0%}){failed}, {rate_line(snapshot)}"


class ProgressView(Protocol):
    """Shows snapshots while its `with` block runs."""

    def __enter__(self) -> "ProgressView": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Show `snapshot`; may be called often."""
        ...


def progress_view(console: Console, model: str) -> ProgressView:
    """A bar if `console` is a terminal, else a logged line every `PLAIN_INTERVAL_SEC`.

    `console` must write to standard error: Ray's output takes standard output to the run log.
    """
    return BarView(console, model) if console.is_terminal else PlainView(model)


class PlainView:
    """Logs one line every `interval_sec`, the first at once, and the last state at the end."""

    def __init__(
        self, model: str, interval_sec: float = PLAIN_INTERVAL_SEC, clock: Clock = time.monotonic
    ) -> None:
        self._model = model
        self._interval_sec = interval_sec
        self._clock = clock
        self._logged_at: float | None = None
        self._unlogged: ProgressSnapshot | None = None

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unlogged is not None:
            self._log(self._unlogged)

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Log `snapshot` if it is time."""
        self._unlogged = snapshot
        if self._logged_at is None or self._clock() - self._logged_at >= self._interval_sec:
            self._log(snapshot)

    def _log(self, snapshot: ProgressSnapshot) -> None:
        logger.info("%s", plain_line(snapshot, self._model))
        self._logged_at = self._clock()
        self._unlogged = None


class BarView:
    """A progress bar on a terminal, from the first snapshot on: before that, Ray is started."""

    def __init__(self, console: Console, model: str) -> None:
        self._model = model
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            redirect_stdout=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "BarView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._progress.stop()

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Redraw."""
        if self._task is None:
            self._task = self._progress.add_task("", total=snapshot.num_rows_total)
        waiting = snapshot.num_workers_ready == 0 and snapshot.decode_sec == 0
        text = starting_line(snapshot, self._model) if waiting else rate_line(snapshot)
        self._progress.update(
            self._task,
            completed=snapshot.num_rows_done,
            description=text,
        )
        self._progress.start()  # what runs already is left alone
