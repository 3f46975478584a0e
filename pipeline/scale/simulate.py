"""A run on any number of workers, played through with measured shard times and measured costs.

The loop is that of `pipeline.generate.worker_pool`: a round gives work to every free place, waits for the
next answer, then settles all answers that came meanwhile. The queue is the pipeline's own. What is made
up is only when shards end: times are drawn from measured ones, some workers are slower than others
throughout, and workers are lost with the shards that they hold.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

from pipeline.generate.shard_queue import ShardQueue

SHARDS_PER_WORKER = 2  # as in the worker pool: the next shard fills the batch of the one before
POLL_SEC = 1.0  # as in the worker pool: the longest wait between two rounds
LOST = "the worker was lost"


@dataclass(frozen=True)
class Workload:
    """What there is to do: shards of about equal size, whose times scatter as measured ones do."""

    num_shards: int
    shard_sec: float  # mean seconds from giving a shard to a worker to its part, two at once in a worker
    times: tuple[float, ...]  # measured; only their scatter around their mean counts

    def draw(self, dice: np.random.Generator) -> np.ndarray:
        """Seconds of each shard on a worker of common speed."""
        relative = np.array(self.times) / np.mean(self.times)
        return self.shard_sec * dice.choice(relative, self.num_shards)


@dataclass(frozen=True)
class Machines:
    """The workers and their troubles."""

    num_workers: int
    slow_fraction: float = 0.0  # of the workers
    slow_factor: float = 3.0  # a slow worker takes so many times as long
    losses_per_hour: float = 0.0  # of each worker
    replace_sec: float = 300.0  # until a lost worker's successor has loaded the model


@dataclass(frozen=True)
class DriverCosts:
    """Seconds of one round of the driver's loop, and its share of time for what it does besides."""

    per_worker_sec: float  # calls waited over, progress summed up
    per_shard_sec: float  # giving a shard and taking its receipt
    questions_share: float = 0.0  # asking workers for their progress, and taking the answers


@dataclass(frozen=True)
class Played:
    """How the run went."""

    seconds: float
    ideal_sec: float  # the same work on workers that are never slow, lost, waiting or idle
    driver_busy_sec: float
    num_lost: int
    num_repeated: int  # shards that a lost worker had begun
    num_unfinished: int

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that the ideal would have needed."""
        return self.ideal_sec / self.seconds

    @property
    def driver_share(self) -> float:
        """The share of the run that the driver worked; near 1 it is the bottleneck."""
        return self.driver_busy_sec / self.seconds


@dataclass(order=True)
class _Event:
    at: float
    worker: int
    life: int = field(compare=False)  # a worker that was replaced has a new one
    shard: str = field(compare=False)  # "" when the worker is lost


def simulate(work: Workload, machines: Machines, costs: DriverCosts, seed: int = 0) -> Played:
    """Play the run; the same arguments give the same run."""
    return _Run(work, machines, costs, np.random.default_rng(seed)).play()


class _Run:
    def __init__(
        self, work: Workload, machines: Machines, costs: DriverCosts, dice: np.random.Generator
    ) -> None:
        self._work, self._machines, self._costs, self._dice = work, machines, costs, dice
        self._seconds = work.draw(dice)
        self._names = [str(number) for number in range(work.num_shards)]
        self._queue = ShardQueue(self._names, max_attempts=10**6)
        is_slow = dice.random(machines.num_workers) < machines.slow_fraction
        self._pace = np.where(is_slow, machines.slow_factor, 1.0)
        self._life = [0] * machines.num_workers
        self._ready_at = [0.0] * machines.num_workers
        self._held: list[set[str]] = [set() for _ in range(machines.num_workers)]
        self._events: list[_Event] = []
        self._free = set(range(machines.num_workers))
        self._num_lost = self._num_repeated = 0

    def play(self) -> Played:
        now = busy = 0.0
        round_sec = self._costs.per_worker_sec * self._machines.num_workers
        questions = self._costs.questions_share
        for worker in range(self._machines.num_workers):
            self._plan_loss(worker, now)
        while not self._queue.is_finished:
            num_moved = self._give(now)
            waited = max(0.0, self._events[0].at - now)
            now += waited
            while self._events and self._events[0].at <= now:
                num_moved += self._settle(heapq.heappop(self._events))
            spent = (round_sec + self._costs.per_shard_sec * num_moved / 2) / (1 - questions)
            now, busy = now + spent, busy + spent + round_sec * int(waited / POLL_SEC)
        return Played(
            seconds=now,
            ideal_sec=float(self._seconds.sum()) / (self._machines.num_workers * SHARDS_PER_WORKER),
            driver_busy_sec=min(now, busy + questions * now),
            num_lost=self._num_lost,
            num_repeated=self._num_repeated,
            num_unfinished=len(self._queue.unfinished),
        )

    def _give(self, now: float) -> int:
        """Shards for the free places of workers that are up; how many were given."""
        num_given = 0
        for worker in sorted(self._free) if self._queue.has_waiting else ():
            if self._ready_at[worker] > now:
                continue
            while len(self._held[worker]) < SHARDS_PER_WORKER:
                shard = self._queue.take(worker_is_idle=not self._held[worker])
                if shard is None:
                    return num_given
                self._held[worker].add(shard)
                seconds = self._seconds[int(shard)] * self._pace[worker]
                heapq.heappush(self._events, _Event(now + float(seconds), worker, self._life[worker], shard))
                num_given += 1
            self._free.discard(worker)
        return num_given

    def _settle(self, event: _Event) -> int:
        """Take one event in; 1 if it was a finished shard."""
        worker = event.worker
        if event.life != self._life[worker]:
            return 0  # of a worker that is gone
        self._free.add(worker)
        if not event.shard:
            self._lose(worker, event.at)
            return 0
        self._held[worker].discard(event.shard)
        self._queue.done(event.shard)
        return 1

    def _lose(self, worker: int, at: float) -> None:
        for shard in sorted(self._held[worker]):
            self._queue.returned(shard, LOST)
        self._num_repeated += len(self._held[worker])
        self._held[worker].clear()
        self._num_lost += 1
        self._life[worker] += 1
        self._ready_at[worker] = at + self._machines.replace_sec
        # An event of no consequence, so that the driver looks again when the successor is there.
        heapq.heappush(self._events, _Event(self._ready_at[worker], worker, -1, ""))
        self._plan_loss(worker, self._ready_at[worker])

    def _plan_loss(self, worker: int, since: float) -> None:
        if self._machines.losses_per_hour > 0:
            wait = self._dice.exponential(3600 / self._machines.losses_per_hour)
            heapq.heappush(self._events, _Event(since + wait, worker, self._life[worker], ""))
