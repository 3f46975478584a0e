import os
from unittest.mock import patch

import pytest

from pipeline import environment


@pytest.fixture(autouse=True)
def _environment_is_put_back():
    with patch.dict(os.environ):
        yield


def test_telemetry_is_off_unless_the_user_wants_it(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    environment.silence_telemetry()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "0"


def test_workers_get_what_the_job_has():
    environment.silence_telemetry()
    environment.forbid_hub_access()
    assert environment.worker_environment().items() >= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}.items()


@pytest.mark.parametrize(
    ("listing", "is_cpu_build", "expected"),
    [
        ("GPU 0: NVIDIA H200 (UUID: x)", False, "gpu"),
        ("GPU 0: NVIDIA H200 (UUID: x)", True, "cpu"),
        ("No devices were found", False, "cpu"),
    ],
)
def test_the_backend_follows_gpu_and_installed_build(tmp_path, monkeypatch, listing, is_cpu_build, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{listing}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(environment, "_is_cpu_build", lambda: is_cpu_build)
    assert environment.machine_backend() == expected


def test_no_driver_means_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.machine_backend() == "cpu"
