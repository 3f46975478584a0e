"""Which workers have shown no sign of life for too long. Pure bookkeeping."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.generate.contract import WorkerProgress

logger = logging.getLogger(__name__)

Clock = Callable[[], float]
# A round of the driver that takes this share of the stall timeout is one in which it stood still itself.
DRIVER_SHARE = 0.1
DRIVER_SEC = 5.0  # at least: a round may wait a second for answers


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
        self._round_at = clock()

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

    def driver_round(self) -> None:
        """The driver took all answers that are there; to be told in each round, before `complaint`.

        If the driver stood still since the round before (a write that hung, a machine that was moved), nobody
        listened to the workers: all of them begin anew.
        """
        now, longest_sec = self._clock(), max(DRIVER_SEC, DRIVER_SHARE * self._stall_timeout_sec)
        if now - self._round_at > longest_sec:
            logger.warning("the driver stood still for %.0f s", now - self._round_at)
            self.begin_anew()
        self._round_at = now

    def begin_anew(self) -> None:
        """Forget how long each worker has been silent."""
        for vitals in self._vitals.values():
            vitals.alive_at = self._clock()

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
