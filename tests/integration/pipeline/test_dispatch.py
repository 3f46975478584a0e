"""Dispatch on real Ray with a worker without an engine: processes are really killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.errors import BusyError, DataError, GenerationError, MachineError, ModelError
from pipeline.generate.dispatch import generate_shards, run_shards
from pipeline.generate.ray_cluster import ray_session
from pipeline.generate.shard_queue import MAX_BAD_ROWS
from pipeline.schemas import FAILED
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from pipeline.storage.lock import exclusive
from pipeline.storage.parts import finished_shards, read_knowledge
from tests.generation import FINGERPRINT, ToyWorker, make_plan, make_result, make_spec, run_settings

ROOT = Path(__file__).parents[3]


class SharingWorker(ToyWorker):
    """Works once two of its kind are up: on a slow machine one could finish before the other has started."""

    seconds_per_shard = 0.2

    def before(self, shard, attempt):
        end = time.monotonic() + 60
        while len(list(self.trace.glob("started.*"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)


class KilledTwiceWorker(ToyWorker):
    """Its process is killed at the first start, and in the first attempt at one shard, beside another."""

    def __init__(self, spec, finished_parts):
        super().__init__(spec, finished_parts)
        if self.leave("built") == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, shard, attempt):
        if shard == "item-00002" and attempt == 0:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)


class BadShardsWorker(ToyWorker):
    """One shard raises, another one kills whatever process it runs in."""

    seconds_per_shard = 0.1

    def before(self, shard, attempt):
        if shard == "item-00001":
            raise ValueError("planted\nfailure")
        if shard == "item-00003":
            os.kill(os.getpid(), signal.SIGKILL)


class BadModelWorker(ToyWorker):
    def __init__(self, spec, finished_parts):
        super().__init__(spec, finished_parts)
        raise OSError("no weights\nin the folder")


class DiesAtStartWorker(ToyWorker):
    def __init__(self, spec, finished_parts):
        super().__init__(spec, finished_parts)
        os.kill(os.getpid(), signal.SIGKILL)


class LosesRowsWorker(ToyWorker):
    """Two rows fail; one row of the last shard is lost."""

    def run_shard(self, shard, rows):
        lost = 1 if shard == "item-00002" else 0
        return make_result(shard, rows[lost:], failing=frozenset({"3", "5"}))


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory):
    """One Ray for the tests of this module: starting it takes longer than what they do."""
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with ray_session(run_settings().cluster, log):
        yield


@pytest.fixture
def layout(tmp_path):
    return RunLayout(tmp_path / "toy" / "runs" / "run")


def write_plan(layout, num_shards, rows_per_shard=4):
    plan = make_plan(num_shards, rows_per_shard)
    write_parquet(plan, layout.plan)
    return plan


def events(layout, name):
    """How often an event of `ToyWorker.leave` happened, and in how many processes."""
    names = [path.name.split(".") for path in (layout.root / "trace").glob(f"{name}.*")]
    return len(names), len({pid for _, pid, _ in names})


def assert_complete(layout, plan):
    knowledge = read_knowledge(layout)
    assert sorted(knowledge["entity_id"].to_pylist()) == sorted(plan["entity_id"].to_pylist())
    assert finished_shards(layout, FINGERPRINT, plan) == set(plan["shard"].to_pylist())
    assert not list(layout.root.rglob(".tmp-*"))


def test_two_workers_share_the_work_and_a_rerun_does_only_what_is_missing(own_ray, layout, capfd):
    plan = write_plan(layout, num_shards=12)
    snapshots = []
    outcome = generate_shards(plan, make_spec(layout, num_workers=2), layout, SharingWorker, snapshots.append)
    assert_complete(layout, plan)
    assert events(layout, "item-*") == (12, 2)
    assert events(layout, "started") == (2, 2) and events(layout, "closed") == (2, 2)
    assert (outcome.num_rows, outcome.num_failed, outcome.unfinished) == (48, 0, {})
    assert outcome.progress.num_output_tokens == 48 * 8 and outcome.decode_sec > 0
    assert snapshots[0].num_workers_ready == 0 and snapshots[-1].num_rows_done == 48
    assert {"noise of Python", "noise of a child process"} <= set(layout.log.read_text().splitlines())
    assert capfd.readouterr().out == ""

    layout.part_manifest("item-00002").write_text("{")
    layout.part("item-00004").write_bytes(b"PAR1")
    (layout.parts / ".tmp-0-item-00009.parquet").write_text("left over")
    outcome = generate_shards(plan, make_spec(layout, num_workers=1), layout, ToyWorker)
    assert_complete(layout, plan)
    assert outcome.num_shards_run == 2 and outcome.num_rows == 48
    ran = sorted(path.name.split(".")[0] for path in (layout.root / "trace").glob("item-*.1"))
    assert ran == ["item-00002", "item-00004"]
    taught = sorted(path.read_text() for path in (layout.root / "trace").glob("started.*"))
    assert taught == ["0", "0", "10"]  # finished parts teach the new worker


def test_a_killed_worker_is_replaced_and_its_shards_run_again(own_ray, layout, capfd):
    plan = write_plan(layout, num_shards=6)
    outcome = generate_shards(plan, make_spec(layout, num_workers=1), layout, KilledTwiceWorker)
    assert_complete(layout, plan)
    assert events(layout, "built") == (3, 3) and events(layout, "item-00002") == (2, 2)
    assert outcome.unfinished == {}
    assert capfd.readouterr().out == ""  # Ray prints the death of a worker, but not on the terminal


@pytest.mark.slow
def test_bad_shards_are_given_up_and_take_no_other_with_them(own_ray, layout):
    plan = write_plan(layout, num_shards=6)
    spec = make_spec(layout, num_workers=1, max_shard_attempts=2)
    outcome = run_shards(plan, spec, layout, BadShardsWorker)
    assert outcome.unfinished == {
        "item-00001": "ValueError: planted failure",
        "item-00003": "the worker process died",
    }
    # With its rows together, then row by row until one is found, and so on, each time in a fresh worker: four
    # bad rows are too many.
    num_runs = 2 * (1 + MAX_BAD_ROWS)
    assert events(layout, "item-00001") == (num_runs, num_runs)
    assert outcome.num_rows == 16 and read_knowledge(layout).num_rows == 16
    with pytest.raises(GenerationError, match="2 shards are unfinished: item-00001, item-00003; last reason"):
        outcome.require_complete(max_failed_fraction=1.0)
    generate_shards(plan, spec, layout, ToyWorker)
    assert_complete(layout, plan)


def test_a_worker_that_cannot_be_built_ends_the_run_at_once(own_ray, layout):
    plan = write_plan(layout, num_shards=3)
    with pytest.raises(ModelError, match="/models/toy: the worker could not start: OSError: no weights in"):
        generate_shards(plan, make_spec(layout, num_workers=1), layout, BadModelWorker)
    assert events(layout, "started") == (1, 1)
    assert "Traceback" in layout.log.read_text()


def test_a_worker_that_dies_whenever_it_starts_ends_the_run(own_ray, layout):
    plan = write_plan(layout, num_shards=3)
    spec = make_spec(layout, num_workers=1, max_shard_attempts=1)
    with pytest.raises(MachineError, match=r"died while it started; see .*run\.log") as caught:
        generate_shards(plan, spec, layout, DiesAtStartWorker)
    assert caught.value.exit_code == 1  # a machine may be the cause: no wrong configuration


def test_failed_rows_are_recorded_and_a_lost_row_is_noticed(own_ray, layout):
    plan = write_plan(layout, num_shards=3)
    bad_line = pa.Table.from_pylist(
        [{"stage": "read", "file": "u.item", "line": 7, "reason": "no title"}], schema=FAILED
    )
    spec = make_spec(layout, num_workers=1, max_shard_attempts=1)
    outcome = run_shards(plan, spec, layout, LosesRowsWorker, earlier_failures=bad_line)
    assert outcome.unfinished == {"item-00002": "shard item-00002: 3 rows and 0 failures for 4 planned rows"}
    assert not layout.part("item-00002").exists()
    failed = pq.read_table(layout.failed).to_pydict()
    assert failed["stage"] == ["read", "generate", "generate"] and failed["entity_id"] == [None, "3", "5"]
    assert read_knowledge(layout).num_rows == outcome.num_rows == 6

    with pytest.raises(GenerationError, match=r"2 of 12 planned items failed, .* max_failed_fraction=0\.01"):
        generate_shards(plan, spec, layout, ToyWorker)  # what failed in a finished part still counts
    assert read_knowledge(layout).num_rows == 10


def test_a_run_without_its_plan_file_is_refused(layout):
    with pytest.raises(DataError, match=r"plan\.parquet: not there"):
        run_shards(make_plan(1, 4), make_spec(layout), layout, ToyWorker)


def test_a_second_driver_of_the_same_run_is_refused(layout):
    plan = write_plan(layout, num_shards=1)
    with exclusive(layout.root), pytest.raises(BusyError, match="another process is generating"):
        generate_shards(plan, make_spec(layout), layout, ToyWorker)


DRIVER = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from pipeline.generate.dispatch import generate_shards
from pipeline.storage.layout import RunLayout
from tests.generation import ToyWorker, make_spec

class Worker(ToyWorker):
    seconds_per_shard = 0.3

layout = RunLayout(Path(sys.argv[1]))
spec = make_spec(layout, num_workers=1, address=sys.argv[2] or None)
generate_shards(pq.read_table(layout.plan), spec, layout, Worker)
print("ray" in sys.modules)
"""


def start_driver(layout, address=""):
    """A driver with a Ray of its own, or on the one at `address`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, str(layout.root), address]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def worker_pids(layout):
    return {int(path.name.split(".")[1]) for path in (layout.root / "trace").glob("started.*")}


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_dead(pids):
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, pids))


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_resumes_and_each_entity_stands_once(own_ray, layout):
    plan = write_plan(layout, num_shards=30)
    shared_ray = ray.get_runtime_context().gcs_address
    dice = random.Random()
    for wanted, address in ((4, ""), (12, shared_ray)):
        driver = start_driver(layout, address)
        deadline = time.monotonic() + 120
        while len(list(layout.parts.glob("*.json"))) < wanted and time.monotonic() < deadline:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
        time.sleep(dice.random() * 0.3)
        driver.kill()
        driver.communicate()
        assert wanted <= len(finished_shards(layout, FINGERPRINT, plan)) < 30
        wait_until_dead(worker_pids(layout))  # no worker outlives its driver
    driver = start_driver(layout, shared_ray)
    out, err = driver.communicate(timeout=120)
    assert (driver.returncode, out, err) == (0, "True\n", "")
    assert_complete(layout, plan)

    out, err = start_driver(layout).communicate(timeout=60)
    assert (out, err) == ("False\n", "")  # nothing is missing: Ray is not even imported
