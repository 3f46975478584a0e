"""The driver killed at random moments of a run: reading, starting, generating, committing, pooling."""

import multiprocessing
import random
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from drafters.datastore import Datastore
from pipeline.generate.dispatch import generate_shards
from pipeline.pools import extend_pools, version_in_force
from pipeline.storage.layout import DatasetLayout, RunLayout
from tests.generation import ToyWorker, make_spec
from tests.integration.pipeline.faults.toy_runs import assert_complete, num_runs, write_plan

pytestmark = pytest.mark.slow  # twenty kills: a minute and a half

NUM_KILLS = 20
NUM_SHARDS = 200
VOCAB_SIZE = 64
MODULES = ["ray", "pipeline.generate.worker_pool", "pipeline.pools", "tests.generation"]


class QuickWorker(ToyWorker):
    seconds_per_shard = 0.1


def drive(root, address):
    """A driver in a process of its own, from the plan to the pools."""
    layout = RunLayout(Path(root))
    spec = make_spec(layout, num_workers=1, address=address)
    generate_shards(pq.read_table(layout.plan), spec, layout, QuickWorker)
    dataset = DatasetLayout(layout.root.parents[1])
    extend_pools(dataset, layout, None, spec.tokenizer_hash, VOCAB_SIZE)


def test_a_driver_killed_at_twenty_random_moments_leaves_a_run_that_ends_complete(cluster, node, layout):
    plan = write_plan(layout, NUM_SHARDS)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(MODULES)
    dice = random.Random(4)
    num_killed = 0
    num_done = [0]
    for _ in range(NUM_KILLS):
        driver = processes.Process(target=drive, args=(str(layout.root), cluster.address))
        driver.start()
        num_parts = dice.choice((0, 0, 1, 2, 4))
        _wait_for_parts(driver, layout, num_parts)
        time.sleep(dice.uniform(0, 0.1 if num_parts else 2))
        num_killed += driver.is_alive()
        driver.kill()
        driver.join()
        num_done.append(len(list(layout.parts.glob("*.json"))))
    assert num_killed == NUM_KILLS and 0 < num_done[-1] < NUM_SHARDS
    assert num_done == sorted(num_done)  # what is finished is kept

    last = processes.Process(target=drive, args=(str(layout.root), cluster.address))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert_complete(layout, plan)
    assert sum(num_runs(layout, shard) for shard in set(plan["shard"].to_pylist())) < 2 * NUM_SHARDS
    dataset = DatasetLayout(layout.root.parents[1])
    store = Datastore.open(dataset.datastore / version_in_force(dataset), "0", VOCAB_SIZE)
    store.verify()


def _wait_for_parts(driver, layout, num_new):
    """Until the driver has added so many parts."""
    wanted = len(list(layout.parts.glob("*.json"))) + num_new
    while driver.is_alive() and len(list(layout.parts.glob("*.json"))) < wanted:
        time.sleep(0.01)
