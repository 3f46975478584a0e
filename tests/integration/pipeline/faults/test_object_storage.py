"""Runs whose data lies in an object store: a real S3 server, drivers really killed."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from drafters.datastore import Datastore
from pipeline.errors import BusyError, CorruptPartError, StorageError
from pipeline.generate.dispatch import generate_shards
from pipeline.plan import read_plan
from pipeline.pools import extend_pools, version_in_force
from pipeline.storage import lock
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import data_path, read_table
from pipeline.storage.lock import MAX_CLOCK_SKEW_SEC, STALE_SEC, Owner, exclusive, owned
from pipeline.storage.parts import committed_shards, read_knowledge
from pipeline.storage.pool_copies import local_pools
from tests.generation import ToyWorker, make_spec
from tests.integration.pipeline.faults.toy_runs import assert_complete, write_plan

ROOT = Path(__file__).parents[4]
VOCAB_SIZE = 64
NUM_WORKERS_OF_A_NODE = 8
processes = multiprocessing.get_context("spawn")  # a server that forks keeps an earlier module's environment


class QuickWorker(ToyWorker):
    seconds_per_shard = 0.1


def drive(data, address):
    dataset = DatasetLayout.of(data, "toy")
    layout = dataset.run("run")
    spec = make_spec(layout, num_workers=1, address=address)
    generate_shards(read_plan(layout.plan), spec, layout, QuickWorker)
    extend_pools(dataset, layout, None, spec.tokenizer_hash, VOCAB_SIZE)


def copy_pools(folder, log):
    logging.basicConfig(filename=log, level=logging.INFO)
    store = Datastore.open(local_pools(data_path(folder)), "0", VOCAB_SIZE)
    logging.info("mapped %d tokens", store.num_tokens)


@pytest.mark.slow
def test_a_run_in_a_bucket_killed_in_between_ends_complete_with_pools_that_a_node_copies_once(
    bucket, cluster, node, tmp_path
):
    data = f"{bucket}/killed"
    dataset = DatasetLayout.of(data, "toy")
    layout = dataset.run("run")
    plan = write_plan(layout, num_shards=30)
    for wanted in (3, 10):
        driver = processes.Process(target=drive, args=(data, cluster.address))
        driver.start()
        while driver.is_alive() and len(committed_shards(layout)) < wanted:
            time.sleep(0.02)
        assert driver.is_alive()
        driver.kill()
        driver.join()
    done = committed_shards(layout)
    assert 10 <= len(done) < 30
    before = {shard: layout.part_manifest(shard).read_text() for shard in done[:-2]}
    layout.part(done[0]).write_bytes(b"PAR1")  # altered afterwards: its manifest shows it
    del before[done[0]]

    driver = processes.Process(target=drive, args=(data, cluster.address))
    driver.start()
    driver.join()
    assert driver.exitcode == 0
    assert_complete(layout, plan)
    assert {shard: layout.part_manifest(shard).read_text() for shard in before} == before
    assert read_table(layout.failed).num_rows == 0
    assert "noise of Python" in layout.log.read_text() and layout.progress.exists()
    version = version_in_force(dataset)
    assert version.startswith("run-")

    log = tmp_path / "copies.log"
    folder = str(dataset.datastore / version)
    copying = [processes.Process(target=copy_pools, args=(folder, log)) for _ in range(NUM_WORKERS_OF_A_NODE)]
    for process in copying:
        process.start()
    for process in copying:
        process.join()
    lines = log.read_text()
    assert lines.count("copying s3://") == 1 and lines.count("mapped ") == NUM_WORKERS_OF_A_NODE


def test_a_pool_that_is_altered_in_the_store_is_refused_by_name(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("LASER_CACHE_DIR", str(tmp_path))
    dataset = DatasetLayout.of(f"{bucket}/altered", "toy")
    (dataset.datastore / "run" / "header.json").write_text("{")
    with pytest.raises(CorruptPartError, match=r"header\.json"):
        local_pools(dataset.datastore / "run")
    assert not [path for path in tmp_path.rglob("*") if path.name == "header.json"]


def test_one_run_at_a_time_and_a_dead_owner_is_followed(bucket, monkeypatch):
    folder = data_path(f"{bucket}/locks/run")
    with (
        exclusive(folder),
        pytest.raises(BusyError, match=r"another process .* process \d+, since"),
        exclusive(folder),
    ):
        pass
    assert not list(folder.glob(".lock*"))

    elsewhere = replace(Owner.this_process("run"), host="elsewhere")
    record = folder / ".lock.owner-000007"
    write_json(asdict(replace(elsewhere, alive_at=time.time() - 20)), record)
    with monkeypatch.context() as patched:
        patched.setattr(
            lock.time, "sleep", lambda _: write_json(asdict(elsewhere), record)
        )  # it is heard again
        with pytest.raises(BusyError, match="run on elsewhere"), owned(folder / ".lock", "run"):
            pass
    write_json(asdict(replace(elsewhere, alive_at=time.time() - STALE_SEC - MAX_CLOCK_SKEW_SEC - 1)), record)
    with owned(folder / ".lock", "run"):
        assert [path.name for path in folder.glob(".lock*")] == [".lock.owner-000008"]


def test_a_store_that_refuses_an_object_is_named_in_one_line(bucket):
    path = data_path("s3://no-such-bucket/data/rows.parquet")
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/data/rows\.parquet: cannot be written: \S"):
        write_parquet(pa.table({"number": [1]}), path)


@pytest.mark.slow  # two engine starts
def test_the_whole_road_with_its_data_in_a_bucket_killed_and_resumed(bucket, tmp_path, smollm2):
    models = tmp_path / "cache" / "models"
    models.mkdir(parents=True)
    (models / smollm2.name).symlink_to(smollm2)
    dataset = DatasetLayout.of(f"{bucket}/road", "movielens")
    command = [
        sys.executable,
        "-m",
        "jobs.generate",
        "dataset=movielens",
        "limit=4",
        f"paths.data={bucket}/road",
    ]
    small = ["plan.shard_size=2", "knowledge.user.max_tokens=32", "knowledge.item.max_tokens=32"]
    environment = os.environ | {"LASER_CACHE_DIR": str(tmp_path / "cache")}

    def start():
        return subprocess.Popen(
            [*command, *small, "engine.cpu_kv_cache_gib=1", "run_id=night"],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    layout = dataset.run("night")
    first = start()
    while first.poll() is None and not committed_shards(layout):
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert 1 <= len(committed_shards(layout)) < 4
    second = start()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert read_knowledge(layout).num_rows == 8  # each entity once
    assert json.loads(layout.manifest.read_text())["summary"]["num_rows"] == 8
    for path in (layout.plan, layout.failed, layout.log, dataset.tables / "users.parquet"):
        assert path.exists(), path
    version = version_in_force(dataset)
    assert version.startswith("night-") and (dataset.datastore / version / "header.json").exists()
