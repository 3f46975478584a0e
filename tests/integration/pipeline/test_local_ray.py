"""Ray on this machine: starts that fail in every way it has, and a machine that is full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from pipeline.errors import MachineError
from pipeline.generate import local_ray, worker_pool
from pipeline.generate.dispatch import generate_shards
from pipeline.generate.ray_cluster import ray_session
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from tests.generation import ToyWorker, make_plan, make_spec, run_settings

ROOT = Path(__file__).parents[3]
# Read by each Python that starts: what becomes of the processes that start Ray, one line each.
PLANTED = """
import os, sys
from pathlib import Path

if "pipeline.generate.local_ray" in sys.orig_argv:
    file = Path(__file__).with_name("faults")
    fault, *rest = file.read_text().splitlines()
    file.write_text("\\n".join(rest))
    if fault == "exit":  # as Ray's core does
        os._exit(1)
    if fault != "none":
        import ray

        def init(*args, **kwargs):
            raise Exception(fault)

        ray.init = init
"""


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Let the next starts of Ray fail, each in its way."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(local_ray, "RETRY_SEC", 0.1)

    def plant(*faults):
        (folder / "faults").write_text("\n".join(faults))
        return folder / "faults"

    return plant


def test_a_start_is_tried_again_whatever_ray_says_and_even_if_it_ends_its_process(plant, tmp_path, caplog):
    left = plant("exit", "Timed out waiting for file /tmp/ray/gcs_port", "none", "never tried")
    with ray_session(run_settings().cluster, tmp_path / "run.log") as machines:
        assert machines[0].num_cpus >= 1
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert not ray.is_initialized()
    assert left.read_text() == "never tried"
    assert "(1 of 3): the process that starts it ended with code 1" in caplog.text
    assert "(2 of 3): Exception: Timed out waiting for file /tmp/ray/gcs_port" in caplog.text
    assert "Timed out waiting for file" in (tmp_path / "run.log").read_text()


def test_a_ray_that_never_starts_ends_the_run_with_the_cause(plant, tmp_path):
    left = plant(
        "The current node timed out during startup.", "exit", "No space left on device", "never tried"
    )
    with (
        pytest.raises(
            MachineError, match=r"3 attempts; .* No space left on device; see .*run\.log"
        ) as caught,
        ray_session(run_settings().cluster, tmp_path / "run.log"),
    ):
        pass
    assert caught.value.exit_code == 1
    assert left.read_text() == "never tried"
    assert not ray.is_initialized()


HOLDS = """
import sys, time
from pathlib import Path
from pipeline.generate.ray_cluster import ray_session
from tests.generation import run_settings

with ray_session(run_settings().cluster, Path(sys.argv[1])):
    print("up", file=sys.stderr, flush=True)
    time.sleep(600)
"""


def test_ray_ends_with_a_driver_that_is_killed(tmp_path):
    driver = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "run.log")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "up" in driver.stderr.readline()
    processes = psutil.Process(driver.pid).children(recursive=True)
    assert any("raylet" in process.name() for process in processes)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


class NeverReadyWorker(ToyWorker):
    def __init__(self, spec, finished_parts):
        super().__init__(spec, finished_parts)
        time.sleep(600)


def test_a_machine_that_others_have_filled_is_named_waited_for_and_no_wrong_configuration(
    tmp_path, monkeypatch, caplog
):
    """To Ray's memory monitor this machine is full from one percent on."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setattr(worker_pool, "RESTART_SEC", 3.0)
    layout = RunLayout(tmp_path / "toy" / "runs" / "run")
    plan = make_plan(1, 4)
    write_parquet(plan, layout.plan)
    spec = make_spec(layout, num_workers=1, max_shard_attempts=2)
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"no memory: [\d.]+ of [\d.]+ GB used on \d+\.\S+;") as caught:
        generate_shards(plan, spec, layout, NeverReadyWorker)
    assert caught.value.exit_code == 1
    assert time.monotonic() - started > 3.0
    assert "the next try is in 3 s" in caplog.text
    assert "exceeded threshold" in layout.log.read_text()
