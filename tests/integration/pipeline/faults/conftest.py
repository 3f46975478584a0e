"""A Ray cluster of several nodes on this machine, an S3 server beside it, and runs of toy shards."""

import os
import sys
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.generate.ray_cluster import QUIET_ENVIRONMENT, RAY_ENVIRONMENT
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import data_path

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def environment():
    """What a test session sets is gone after it."""
    before = os.environ.copy()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def bucket(environment, tmp_path_factory):
    """URI of a bucket on a real S3 server; every process started afterwards finds the server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        LASER_CACHE_DIR=str(tmp_path_factory.mktemp("cache")),
    )
    data_path("s3://knowledge/x").fs.mkdir("knowledge")
    yield "s3://knowledge"
    server.stop()


@pytest.fixture(scope="session")
def cluster(bucket):
    """A head without cores, so that workers live on nodes that tests add and remove."""
    modules = os.pathsep.join([str(ROOT), *sys.path])  # workers import the test modules
    os.environ.update(RAY_ENVIRONMENT | QUIET_ENVIRONMENT | {"PYTHONPATH": modules})
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="session")
def node(cluster):
    """A node with two cores that stays."""
    added = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    return added


@pytest.fixture
def layout(tmp_path):
    return RunLayout(tmp_path / "toy" / "runs" / "run")
