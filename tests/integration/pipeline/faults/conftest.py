"""A Ray cluster of several nodes on this machine, an S3 server beside it, and runs of toy shards."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import s3fs
from ray.cluster_utils import Cluster

from pipeline.environment import NO_TELEMETRY
from pipeline.generate.ray_cluster import RAY_ENVIRONMENT
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import data_path

ROOT = Path(__file__).parents[4]
SERVER_START_SEC = 60


@pytest.fixture(scope="module")
def environment():
    """What a module sets is gone after it."""
    before = os.environ.copy()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def bucket(environment, tmp_path_factory):
    """URI of a bucket on a real S3 server; every process started afterwards finds the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In a process of its own: vLLM's start looks at all objects of all modules, and Flask's refuse that.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(port)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        LASER_CACHE_DIR=str(tmp_path_factory.mktemp("cache")),
    )
    s3fs.S3FileSystem.clear_instance_cache()  # an earlier module's server had another address
    data_path("s3://knowledge/x").fs.mkdir("knowledge")
    yield "s3://knowledge"
    server.kill()
    server.wait()


def _wait_for(port):
    deadline = time.monotonic() + SERVER_START_SEC
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(bucket):
    """A head without cores, so that workers live on nodes that tests add and remove."""
    modules = os.pathsep.join([str(ROOT), *sys.path])  # workers import the test modules
    ours = {"PYTHONPATH": modules, "LASER_BACKEND": "cpu"}  # else a GPU build waits for a machine with GPUs
    os.environ.update(RAY_ENVIRONMENT | NO_TELEMETRY | ours)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def node(cluster):
    """A node with two cores that stays."""
    added = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    return added


@pytest.fixture
def layout(tmp_path):
    return RunLayout(tmp_path / "toy" / "runs" / "run")
