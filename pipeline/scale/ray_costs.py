"""What Ray itself costs the driver: a call given and its answer taken, and a wait over many calls."""

import logging
import time
from pathlib import Path
from typing import Any

import ray

from pipeline.generate.contract import WorkerProgress
from pipeline.generate.ray_cluster import ray_session
from pipeline.scale.costs import Cost
from pipeline.settings import ClusterSettings

logger = logging.getLogger(__name__)
NUM_CALLS = (100, 300, 1000)
NUM_PENDING = (30, 300, 3000)  # of 10, 100 and 1,000 workers: two shards and a question each
NUM_WAITS = 20
SETTLE_SEC = 1.0


class _Answering:
    """An actor that answers at once, or never."""

    def progress(self) -> WorkerProgress:
        return WorkerProgress(0, 0, 0, 0, 0, 0, {})

    def never(self) -> None:
        time.sleep(3600)


def measure_ray(log: Path) -> list[Cost]:
    """Start Ray on this machine and measure a driver's calls. Ray's output goes to `log`."""
    with ray_session(ClusterSettings(num_workers=1), log):
        actor_class: Any = ray.remote(_Answering)
        actor = actor_class.options(num_cpus=0, max_concurrency=2).remote()
        ray.get(actor.progress.remote())
        calls = [_seconds_of_calls(actor, number) for number in NUM_CALLS]
        blocked = actor_class.options(num_cpus=0, max_concurrency=1).remote()
        waits = [_seconds_of_wait(blocked, number) for number in NUM_PENDING]
    workers = tuple(number // 3 for number in NUM_PENDING)
    return [
        Cost("a call and its answer", "driver", "worker", NUM_CALLS, tuple(calls)),
        Cost("a wait over three calls each", "driver", "worker", workers, tuple(waits)),
    ]


def _seconds_of_calls(actor: Any, number: int) -> float:
    """The driver's own time for `number` calls: giving them, and taking answers that are there."""
    started = time.perf_counter()
    calls = [actor.progress.remote() for _ in range(number)]
    given = time.perf_counter() - started
    ray.wait(calls, num_returns=len(calls))
    started = time.perf_counter()
    for call in calls:
        ray.get(call)
    return given + time.perf_counter() - started


def _seconds_of_wait(actor: Any, num_pending: int) -> float:
    """One look at `num_pending` calls of which none has returned; the mean of several looks."""
    calls = [actor.never.remote() for _ in range(num_pending)]
    time.sleep(SETTLE_SEC)
    started = time.perf_counter()
    for _ in range(NUM_WAITS):
        ray.wait(calls, num_returns=len(calls), timeout=0)
    return (time.perf_counter() - started) / NUM_WAITS
