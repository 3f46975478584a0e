"""A Ray cluster of several nodes on this machine, which find its S3 server, and runs of toy shards."""

import os
import sys
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.environment import NO_TELEMETRY
from pipeline.generate.local_ray import RAY_ENVIRONMENT
from pipeline.storage.layout import RunLayout

ROOT = Path(__file__).parents[4]


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
