"""The pool's loop against a played Ray, whose clock moves only when the driver waits; the real one is in
tests/integration."""

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from pipeline.errors import MachineError, ModelError, StorageError
from pipeline.generate import worker_pool
from pipeline.generate.progress import NO_PROGRESS, ProgressTracker
from pipeline.generate.ray_cluster import Node, PoolSize
from pipeline.generate.shard_queue import ShardQueue
from pipeline.generate.shard_server import ShardReceipt, StartReceipt
from pipeline.generate.worker_pool import MACHINES_SEC, POLL_SEC, RESTART_SEC, WorkerPool
from pipeline.storage.layout import RunLayout
from tests.generation import ToyWorker, make_spec

SHARD_SEC = 20.0
WORKER = Node(num_cpus=2, num_gpus=0)
FULL = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, \
ID: 24f8957995683b54) was 23.10GB used / 23.54GB limit (0.981)
OOM kill reason: Memory usage 24803262528B exceeded threshold of 24012685107B"""


class PlayedRay:
    """Machines that can be taken away, and workers that start at once and take `SHARD_SEC` for a shard."""

    def __init__(self):
        self.now = 0.0
        self.machines = [WORKER]
        self.num_waits = 0
        self.killed = []
        self.start_errors = []  # of the next starts; a `RayError`: the process is gone
        self.started_at = []
        self.fails = {}  # shard -> receipt of its next attempt
        self.calls = []  # (shard, bad rows, row by row)
        self._answers = {}  # ref -> (when it is there, value)

    # What the pool calls of ray, and of time.
    def remote(self, _):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def wait(self, refs, num_returns, timeout):
        assert num_returns
        if timeout:
            self.num_waits += 1
            self._advance(min([timeout, *(self._answers[ref][0] - self.now for ref in refs)]))
        ready = [ref for ref in refs if self._answers[ref][0] <= self.now]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref):
        value = self._answers[ref][1]
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, actor):
        self.killed.append(actor)

    def sleep(self, seconds):
        self.num_waits += 1
        self._advance(seconds)

    def monotonic(self):
        return self.now

    # What happens behind it.
    def _actor(self, *_):
        actor = SimpleNamespace(at=self.now)
        error = self.start_errors.pop(0) if self.start_errors else None
        started = error if isinstance(error, RayError) else StartReceipt("node", -1, error)
        actor.started = SimpleNamespace(remote=lambda: self._call(0.1, started))
        self.started_at.append(self.now)
        actor.run_shard = SimpleNamespace(remote=self._run)
        actor.progress = SimpleNamespace(remote=lambda: self._call(0.0, NO_PROGRESS))
        actor.close = SimpleNamespace(remote=lambda: self._call(0.0, None))
        return actor

    def _run(self, shard, bad_rows, row_by_row):
        self.calls.append((shard, bad_rows, row_by_row))
        return self._call(SHARD_SEC, self.fails.pop(shard, None) or ShardReceipt(4, 0, NO_PROGRESS))

    def fill_memory(self, shard):
        """Ray ends the worker of the next attempt at `shard`."""
        self.fails[shard] = OutOfMemoryError(FULL)

    def _call(self, seconds, value):
        there_at = self.now + seconds if self.machines else float("inf")
        ref = object()
        self._answers[ref] = (there_at, value)
        return ref

    def _advance(self, seconds):
        self.now += max(0.0, seconds)

    def lose_all_machines(self):
        self.machines = []
        lost = ActorDiedError()
        self._answers = {
            ref: (self.now, lost) if at > self.now else (at, value)
            for ref, (at, value) in self._answers.items()
        }


@pytest.fixture
def played(monkeypatch):
    ray = PlayedRay()
    monkeypatch.setattr(worker_pool, "ray", ray)
    monkeypatch.setattr(worker_pool, "time", ray)
    monkeypatch.setattr(worker_pool, "nodes", lambda: ray.machines)
    monkeypatch.setattr(worker_pool, "is_node_alive", lambda _: bool(ray.machines))
    return ray


@pytest.fixture
def make_pool(played, tmp_path, monkeypatch):
    def make(num_shards, may_grow=True, num_workers=1, **cluster):
        layout = RunLayout(tmp_path)
        queue = ShardQueue([f"item-{number}" for number in range(num_shards)], max_attempts=3)
        spec = make_spec(layout, address="here", **cluster)
        size = PoolSize(num_workers, 2, 0, may_grow)
        pool = WorkerPool(ToyWorker, spec, layout, size, queue, ProgressTracker(0, 0, num_workers), set())
        monkeypatch.setattr(pool._watchdog, "_clock", played.monotonic)
        pool._watchdog._round_at = played.now
        return pool, queue

    return make


@pytest.mark.parametrize("may_grow", [True, False])
def test_a_run_that_lost_all_its_machines_waits_for_others_and_ends(played, make_pool, may_grow):
    pool, queue = make_pool(8, may_grow, no_worker_timeout_sec=300)
    lost_at = []

    def lose(_):
        if queue.num_open == 6 and not lost_at:
            lost_at.append(played.now)
            played.lose_all_machines()

    pool.run(lose)
    assert len(queue.unfinished) == 6
    (reason,) = set(queue.unfinished.values())
    assert reason.startswith("no machine could hold a worker for 30") and "no_worker_timeout_sec" in reason
    waited_sec = played.now - lost_at[0]
    assert 300 < waited_sec < 300 + 3 * MACHINES_SEC
    assert played.num_waits < 2 * played.now / POLL_SEC  # it slept, and did not spin


def test_a_machine_that_comes_back_in_time_goes_on_with_the_work(played, make_pool):
    pool, queue = make_pool(8, no_worker_timeout_sec=300, start_timeout_sec=100)
    lost_at = []

    def lose_for_a_while(_):
        if queue.num_open == 6 and not lost_at:
            lost_at.append(played.now)
            played.lose_all_machines()
        if lost_at and not played.machines and played.now > lost_at[0] + 250:  # beyond the start's own limit
            played.machines = [WORKER]
            for ref, (at, _) in list(played._answers.items()):
                if at == float("inf"):
                    played._answers[ref] = (played.now, StartReceipt("node", -1, None))

    pool.run(lose_for_a_while)
    assert queue.is_finished and not queue.unfinished


def test_a_driver_that_stands_still_kills_no_worker(played, make_pool):
    pool, queue = make_pool(4, stall_timeout_sec=60)
    stood_still = []

    def report(_):
        if played.calls and not stood_still:  # a write to a network disk that hangs
            stood_still.append(played.now)
            played.now += 1000

    pool.run(report)
    assert stood_still and not queue.unfinished
    assert len(played.calls) == 4 and len(played.killed) == 1  # each shard once; the worker ends with the run


def test_a_part_that_cannot_be_uploaded_costs_its_shard_an_attempt_and_its_worker_the_place(
    played, make_pool
):
    pool, queue = make_pool(3)
    played.fails["item-1"] = ShardReceipt(0, 0, None, "s3://b/x: cannot be written: reset", None, True)
    pool.run(lambda _: None)
    assert queue.is_finished and not queue.unfinished
    assert [call for call in played.calls if call[0] == "item-1"] == [("item-1", {}, False)] * 2
    assert len(played.killed) == 2


def test_the_pool_follows_the_machines_that_join_and_leave(played, make_pool):
    pool, queue = make_pool(60)
    ready = []

    def change_machines(snapshot):
        ready.append(snapshot.num_workers_ready)
        if ready[-1] == 1 and max(ready) == 1:
            played.machines = [WORKER] * 4
        elif ready[-1] == 4:
            played.machines = [WORKER] * 2  # those that are up stay until Ray says that they are lost

    pool.run(change_machines)
    assert queue.is_finished and not queue.unfinished
    assert max(ready) == 4


def test_a_machine_that_cannot_start_a_worker_does_not_end_the_run_of_the_others(played, make_pool):
    pool, queue = make_pool(8, may_grow=False, num_workers=2)
    played.machines = [WORKER] * 2
    played.start_errors = [StorageError("/cache: no space left on device")]
    pool.run(lambda _: None)
    assert queue.is_finished and not queue.unfinished


def test_an_error_that_no_worker_starts_without_ends_the_run_at_once(played, make_pool):
    pool, _ = make_pool(8, may_grow=False, num_workers=2)
    played.machines = [WORKER] * 2
    played.start_errors = [ModelError("model.path=/nowhere: no such folder")] * 100
    with pytest.raises(ModelError, match="/nowhere"):
        pool.run(lambda _: None)
    assert len(played.start_errors) == 98


def test_a_full_machine_is_named_and_waited_for_between_the_starts(played, make_pool, caplog):
    pool, queue = make_pool(2, may_grow=False, max_shard_attempts=3)
    played.start_errors = [OutOfMemoryError(FULL), OutOfMemoryError(FULL)]
    pool.run(lambda _: None)
    assert queue.is_finished and not queue.unfinished
    first, second, third = played.started_at
    assert second - first >= RESTART_SEC and third - second >= 2 * RESTART_SEC
    assert "no memory: 23.1 of 23.5 GB used on 10.0.0.7; Ray ended the worker while it started" in caplog.text
    assert "exceeded threshold of 24012685107B" in caplog.text  # Ray's own words are in the run log


def test_a_machine_that_stays_full_ends_the_run_as_no_wrong_configuration_does(played, make_pool):
    pool, _ = make_pool(2, may_grow=False, max_shard_attempts=3)
    played.start_errors = [OutOfMemoryError(FULL)] * 3
    with pytest.raises(MachineError, match=r"no memory: 23\.1 of 23\.5 GB used on 10\.0\.0\.7") as caught:
        pool.run(lambda _: None)
    assert caught.value.exit_code == 1
    assert played.now > 3 * RESTART_SEC


@pytest.mark.parametrize("error", [ActorDiedError(), MachineError("no memory: 9.0 of 9.1 GB used on a")])
def test_starts_that_failed_because_of_the_machine_are_no_wrong_configuration(played, make_pool, error):
    pool, _ = make_pool(2, may_grow=False, max_shard_attempts=2)
    played.start_errors = [error] * 2
    with pytest.raises(MachineError, match=r"died while it started; see .*run\.log|no memory: 9") as caught:
        pool.run(lambda _: None)
    assert caught.value.exit_code == 1 and len(played.started_at) == 2


def test_rows_are_not_blamed_for_a_machine_whose_memory_is_full(played, make_pool):
    pool, queue = make_pool(2, may_grow=False, max_shard_attempts=1)
    played.fill_memory("item-0")
    pool.run(lambda _: None)
    assert queue.is_finished and not queue.unfinished
    assert [call[1:] for call in played.calls if call[0] == "item-0"] == [({}, False)] * 2
    assert played.started_at[1] - played.started_at[0] >= RESTART_SEC
