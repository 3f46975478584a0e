import shlex

import pytest

from jobs.cluster.command import ClusterJob
from jobs.config import load_settings
from pipeline.environment import BACKEND_VARIABLE


@pytest.fixture(autouse=True)
def gpu_nodes(monkeypatch):
    """Defaults as on the nodes that the manifests are for, wherever the tests run."""
    monkeypatch.setenv(BACKEND_VARIABLE, "gpu")


@pytest.fixture
def make_job():
    def make(*overrides: str, name: str = "nightly") -> ClusterJob:
        return ClusterJob(name, overrides, load_settings("generate", list(overrides)))

    return make


@pytest.fixture
def parsed_again():
    """The settings that the rendered command composes, and the module it runs."""

    def parse(command: str):
        words = shlex.split(command)
        start = words.index("-m")
        return words[start + 1], load_settings("generate", words[start + 2 :])

    return parse
