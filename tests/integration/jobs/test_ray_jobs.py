"""Submission to a real Ray head with its dashboard: log, exit code and state of jobs of this project."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
START_SEC = 60
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
PATIENCE_SEC = 180
pytestmark = pytest.mark.slow  # a minute each: every job starts a driver of its own on the cluster


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def place():
    """A Ray head of two cores that knows nothing of this checkout; the words that name it."""
    port, dashboard = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")
    }
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_worker_niceness": "0"}
    environment |= TOKEN
    command = [
        "ray", "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}",
        "--include-dashboard=true", "--num-cpus=2", "--num-gpus=0", "--object-store-memory=134217728",
        "--disable-usage-stats", "--block",
    ]  # fmt: skip
    with Path(folder, "head.log").open("w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for_dashboard(f"{url}/api/version", head, folder)
        yield ["cluster=ray", f"cluster.ray_jobs.dashboard={url}"]
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_dashboard(url: str, head: subprocess.Popen, folder: str) -> None:
    deadline = time.monotonic() + START_SEC
    while time.monotonic() < deadline:
        assert head.poll() is None, "the Ray head ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:  # it asks for the token
            return
        except OSError:
            time.sleep(0.5)
    logs = [*sorted(Path(folder).glob("session_latest/logs/dashboard*")), Path(folder, "head.log")]
    ends = [f"{log.name}: {log.read_text()[-1500:]}" for log in logs if log.is_file()]
    raise AssertionError("\n".join(["the dashboard did not answer", *ends]))


def cluster(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cluster", *words], capture_output=True, text=True, check=False,
        timeout=PATIENCE_SEC, cwd=cwd or CHECKOUT, env=os.environ | TOKEN | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip


def test_a_job_generates_on_the_cluster_with_the_uploaded_code(place, smollm2, tmp_path):
    small = ["limit=1", "knowledge.user.max_tokens=8", "knowledge.item.max_tokens=8"]
    words = [*place, f"model.path={smollm2}", "engine.cpu_kv_cache_gib=1", f"paths.data={tmp_path}", *small]
    done = cluster("submit", "--job=generate", "--id=good", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted good" in done.stderr
    assert "2 prompts rendered" in done.stdout and "Run kar-smollm2-135m-" in done.stdout  # the job's log
    parts = list(tmp_path.glob("movielens/runs/*/parts/*.parquet"))
    assert sum(pq.read_table(part).num_rows for part in parts) == 2
    assert cluster("status", "good", *place).stdout == "SUCCEEDED, exit code 0\n"
    assert cluster("logs", "--no-follow", "good", *place).stdout == done.stdout


def test_the_exit_code_is_that_of_the_job(place, tmp_path):
    words = [*place, "dry_run=true", f"paths.data={tmp_path}", f"dataset.raw={tmp_path}/nothing"]
    done = cluster("submit", "--job=generate", "--id=bad", *words)
    assert done.returncode == 2
    assert f"{tmp_path}/nothing" in done.stdout  # the job's own line
    assert done.stderr.splitlines()[-1] == "error: bad: FAILED, exit code 2"
    assert cluster("logs", "bad", *place).returncode == 2


def test_a_submission_whose_answer_was_lost_is_given_again(place, smollm2, tmp_path):
    words = [*place, "dry_run=true", "limit=1", f"model.path={smollm2}", f"paths.data={tmp_path}"]
    first = cluster("submit", "--job=generate", "--id=once", *words)
    again = cluster("submit", "--job=generate", "--id=once", *words)
    assert (first.returncode, again.returncode) == (0, 0), first.stdout + first.stderr + again.stderr
    assert again.stdout == first.stdout, "the log of the job that ran"
    assert "once was submitted before (SUCCEEDED); another --id starts it anew" in again.stderr
    other = cluster("submit", "--job=generate", "--id=once", *words, "offset=1")
    assert other.returncode == 2
    assert "error: --id=once: the cluster has another job of this id" in other.stderr


def test_a_job_is_stopped_and_an_unknown_one_is_named(place, smollm2, tmp_path):
    words = [*place, "limit=all", f"model.path={smollm2}", f"paths.data={tmp_path}"]  # an hour of work
    assert cluster("submit", "--no-wait", "--job=generate", "--id=slow", *words).returncode == 0
    assert cluster("stop", "slow", *place).returncode == 0
    done = cluster("logs", "slow", *place)
    assert done.returncode == 1 and "slow: STOPPED" in done.stderr
    done = cluster("status", "nobody", *place)
    assert (done.returncode, done.stderr) == (2, "error: nobody: the cluster knows no such job\n")
