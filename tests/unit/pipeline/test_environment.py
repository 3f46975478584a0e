import os
from unittest.mock import patch

import pytest

from pipeline import environment
from pipeline.generate.ray_cluster import PoolSize


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
    os.environ.pop("VLLM_NO_USAGE_STATS", None)
    os.environ["DO_NOT_TRACK"] = "0"  # the user's own choice
    environment.forbid_hub_access()
    variables = PoolSize(1, 2, 0).actor_options()["runtime_env"]["env_vars"]
    assert (variables["HF_HUB_OFFLINE"], variables["DO_NOT_TRACK"]) == ("1", "0")
    assert (variables["VLLM_NO_USAGE_STATS"], variables["OMP_NUM_THREADS"]) == ("1", "2")


@pytest.mark.parametrize(("visible", "expected"), [("0,3", 2), ("", 0), ("-1", 0), ("MIG-1", 1)])
def test_the_user_decides_which_gpus_count(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environment.num_nvidia_gpus() == expected


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
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(environment, "is_cpu_build", lambda: is_cpu_build)
    assert environment.machine_backend() == expected


def test_no_driver_means_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment.machine_backend() == "cpu"
