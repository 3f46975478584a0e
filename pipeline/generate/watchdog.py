"""Which workers have shown no sign of life for too long. Pure bookkeeping."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.generate.contract import WorkerProgress

Clock = Callable[[], float]


@dataclass
class _Vitals:
    alive_at: float
    is_ready: bool = False
    counts: tuple[int, ...] = ()


class Watchdog:
    """Notes when each worker process last did something: a row, a token, a shard.

    An engine that hangs answers nothing, or goes on answering with the same counts; both are silence.
    """

    def __init__(
        self, stall_timeout_sec: float, start_timeout_sec: float, clock: Clock = time.monotonic
    ) -> None:
        self._stall_timeout_sec = stall_timeout_sec
        self._start_timeout_sec = start_timeout_sec
        self._clock = clock
        self._vitals: dict[int, _Vitals] = {}

    def starting(self, worker: int) -> None:
        """`worker` (a number never used twice) begins to load its engine."""
        self._vitals[worker] = _Vitals(self._clock())

    def ready(self, worker: int) -> None:
        """Its engine is up."""
        self._vitals[worker] = _Vitals(self._clock(), is_ready=True)

    def alive(self, worker: int) -> None:
        """It finished a shard, or gets its first one after a rest."""
        self._vitals[worker].alive_at = self._clock()

    def progress(self, worker: int, progress: WorkerProgress) -> None:
        """What it answered; only other counts than before are a sign of life."""
        counts = (progress.num_rows, progress.num_output_tokens, progress.num_decoded_tokens)
        vitals = self._vitals[worker]
        if counts != vitals.counts:
            vitals.counts, vitals.alive_at = counts, self._clock()

    def gone(self, worker: int) -> None:
        """Its process has ended."""
        self._vitals.pop(worker, None)

    def complaint(self, worker: int) -> str | None:
        """Why `worker`, which is starting or has work to do, should be replaced; None if it is well."""
        vitals = self._vitals[worker]
        silent_sec = self._clock() - vitals.alive_at
        if vitals.is_ready:
            hangs = silent_sec > self._stall_timeout_sec
            return f"hung: no progress for {silent_sec:.0f} s (cluster.stall_timeout_sec)" if hangs else None
        if silent_sec > self._start_timeout_sec:
            return f"not ready after {silent_sec:.0f} s (cluster.start_timeout_sec)"
        return None
