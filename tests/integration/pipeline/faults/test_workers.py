"""Workers that hang, raise on one row, or lose their machine: real processes on a real Ray cluster."""

import os
import signal
import threading
import time

import pyarrow.parquet as pq
import pytest

from pipeline.errors import GenerationError
from pipeline.generate.dispatch import generate_shards, run_shards
from tests.generation import ToyWorker, make_spec
from tests.integration.pipeline.faults.toy_runs import assert_complete, num_runs, write_plan

pytestmark = pytest.mark.slow  # machines and workers that hang, die and join: two minutes together

PATIENCE_SEC = 60


class HangsOnceWorker(ToyWorker):
    """Hangs in the first attempt at one shard, its process frozen in that of another."""

    def before(self, shard, attempt):
        if attempt == 0 and shard == "item-00001":
            time.sleep(3600)
        if attempt == 0 and shard == "item-00004":
            os.kill(os.getpid(), signal.SIGSTOP)


class HangsAtStartWorker(ToyWorker):
    def __init__(self, spec, finished_parts):
        super().__init__(spec, finished_parts)
        if self.leave("built") == 0:
            time.sleep(3600)


class BadRowsWorker(ToyWorker):
    """The engine raises on entity 5, dies of entity 9 and hangs on entity 13."""

    def run_shard(self, shard, rows):
        ids = rows["entity_id"].to_pylist()
        if "5" in ids:
            raise ValueError("planted\nfailure")
        if "9" in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        if "13" in ids:
            time.sleep(3600)
        return super().run_shard(shard, rows)


class BadShardWorker(ToyWorker):
    def before(self, shard, attempt):
        if shard == "item-00002":
            time.sleep(3600)


class SlowWorker(ToyWorker):
    seconds_per_shard = 0.4


def test_a_worker_that_hangs_is_replaced_and_its_shards_run_again(node, layout):
    plan = write_plan(layout, num_shards=8)
    spec = make_spec(layout, num_workers=2, address="here", stall_timeout_sec=2)
    outcome = generate_shards(plan, spec, layout, HangsOnceWorker)
    assert_complete(layout, plan)
    assert outcome.unfinished == {}
    assert num_runs(layout, "item-00001") == 2 and num_runs(layout, "item-00004") == 2


def test_a_worker_that_hangs_while_it_loads_its_model_is_replaced(node, layout):
    plan = write_plan(layout, num_shards=2)
    spec = make_spec(layout, num_workers=1, address="here", start_timeout_sec=8)
    generate_shards(plan, spec, layout, HangsAtStartWorker)
    assert_complete(layout, plan)
    assert num_runs(layout, "built") == 2


def test_a_shard_that_always_hangs_is_given_up_and_the_others_are_kept(node, layout):
    plan = write_plan(layout, num_shards=4)
    spec = make_spec(layout, num_workers=1, address="here", stall_timeout_sec=1, max_shard_attempts=1)
    outcome = run_shards(plan, spec, layout, BadShardWorker)
    assert list(outcome.unfinished) == ["item-00002"] and outcome.num_rows == 12
    with pytest.raises(GenerationError, match=r"item-00002; last reason: the worker hung: no progress for"):
        outcome.require_complete(1.0)
    generate_shards(plan, spec, layout, ToyWorker)
    assert_complete(layout, plan)


def test_a_row_that_stops_the_engine_fails_alone_and_the_rest_of_its_shard_goes_on(node, layout):
    plan = write_plan(layout, num_shards=5)
    spec = make_spec(layout, num_workers=2, address="here", stall_timeout_sec=1, max_shard_attempts=2)
    outcome = run_shards(plan, spec, layout, BadRowsWorker)
    assert outcome.unfinished == {} and (outcome.num_rows, outcome.num_failed) == (17, 3)
    assert_complete(layout, plan, failed=("5", "9", "13"))
    rows = pq.read_table(layout.failed).to_pylist()
    failed = {row["entity_id"]: (row["stage"], row["kind"], row["reason"]) for row in rows}
    assert failed["5"] == ("generate", "item", "ValueError: planted failure")
    assert failed["9"] == ("generate", "item", "the worker process died")
    assert failed["13"][2].startswith("the worker hung: no progress for")


@pytest.mark.parametrize("politely", [True, False], ids=["leaves", "dies"])
def test_a_lost_machine_costs_its_shards_no_attempt(cluster, node, layout, politely):
    """One that dies is killed without a word, as a machine that loses its power."""
    plan = write_plan(layout, num_shards=30)
    victim = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    spec = make_spec(layout, num_workers=4, address="here", max_shard_attempts=1)
    lost = _when(
        lambda: len(list(layout.parts.glob("*.json"))) >= 6, lambda: cluster.remove_node(victim, politely)
    )
    outcome = generate_shards(plan, spec, layout, SlowWorker)
    lost.join()
    assert_complete(layout, plan)
    assert outcome.unfinished == {}  # with a single attempt for each shard


def test_workers_join_with_a_machine_and_leave_with_it(cluster, node, layout):
    plan = write_plan(layout, num_shards=150)
    spec = make_spec(layout, num_workers="auto", cpus_per_worker=1, address="here", max_shard_attempts=1)
    ready, joined, left = [], [], []

    def change_machines(now):
        ready.append(now.num_workers_ready)
        if ready[-1] == 2 and not joined:
            joined.append(cluster.add_node(num_cpus=2))
        if ready[-1] == 4 and not left:
            left.append(cluster.remove_node(joined[0]))

    generate_shards(plan, spec, layout, SlowWorker, change_machines)
    assert_complete(layout, plan)
    assert max(ready) == 4 and ready[-1] == 2


def test_a_run_that_lost_its_only_machine_sleeps_and_ends_with_the_reason(cluster, node, layout):
    plan = write_plan(layout, num_shards=150)
    only = cluster.add_node(num_cpus=3)  # `node` has too few cores
    cluster.wait_for_nodes()
    size = {"num_workers": "auto", "cpus_per_worker": 3}
    spec = make_spec(layout, **size, address="here", no_worker_timeout_sec=6)
    lost = _when(lambda: len(list(layout.parts.glob("*.json"))) >= 2, lambda: cluster.remove_node(only))
    outcome = run_shards(plan, spec, layout, SlowWorker)
    lost.join()
    with pytest.raises(GenerationError, match=r"no machine could hold a worker for .*no_worker_timeout_sec"):
        outcome.require_complete(1.0)
    assert outcome.num_rows >= 8 and len(outcome.unfinished) == 150 - outcome.num_rows // 4


def _when(condition, action):
    """Do `action` in a thread as soon as `condition` holds."""

    def wait():
        deadline = time.monotonic() + PATIENCE_SEC
        while not condition():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
