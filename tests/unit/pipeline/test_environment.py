import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline import environment
from pipeline.errors import ConfigError
from pipeline.generate.ray_cluster import PoolSize

CHECKOUT = Path(__file__).resolve().parents[3]


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


GPU_PACKAGES = {"vllm": "0.32.0", "torch": "2.13.0", "cuda_toolkit": "13.0.3.0"}


def gpu_build(
    folder: Path,
    nvidia_smi: str | None,
    driver_cuda: int | None,
    packages: dict[str, str] = GPU_PACKAGES,
    **variables: str,
) -> str:
    """What `reject_unfit_build` says where nothing is installed but `packages`: no CPU build, that is.

    `nvidia_smi`: what the program does; None: it is missing. `driver_cuda`: what libcuda says; None: missing.
    """
    for name in ("bin", "lib"):
        (folder / name).mkdir()
    for name, version in packages.items():
        information = folder / "packages" / f"{name}-{version}.dist-info" / "METADATA"
        information.parent.mkdir(parents=True)
        information.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if nvidia_smi is not None:
        (folder / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        (folder / "bin/nvidia-smi").chmod(0o755)
    if driver_cuda is not None:
        source = f"int cuDriverGetVersion(int *version) {{ *version = {driver_cuda}; return 0; }}"
        library = str(folder / "lib/libcuda.so.1")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=source, text=True, check=True
        )
    code = "from pipeline.environment import reject_unfit_build; reject_unfit_build()"
    shown = subprocess.run(
        [sys._base_executable, "-S", "-c", code],
        env={
            "PATH": f"{folder / 'bin'}:/bin",
            "LD_LIBRARY_PATH": str(folder / "lib"),
            "PYTHONPATH": f"{folder / 'packages'}:{CHECKOUT}",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    ).stderr.strip()
    return shown.splitlines()[-1].removeprefix("pipeline.errors.ConfigError: ") if shown else ""


GPU = "case $1 in -L) echo 'GPU 0: NVIDIA L4 (UUID: x)';; *) echo 550.54.15;; esac"
FOR_A_CPU = "for a CPU, make setup BACKEND=cpu installs the other build"
NEEDED = "needed: 580.65.06 or newer, for CUDA 13.0"


@pytest.mark.parametrize(
    ("nvidia_smi", "driver_cuda", "variables", "line"),
    [
        (None, None, {}, f"no GPU is seen on HOST (NVIDIA driver: none; {NEEDED})"),
        (
            "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
            None,
            {},
            f"no GPU is seen on HOST (NVIDIA driver: none; {NEEDED})",
        ),
        (
            GPU,
            12040,
            {},
            f"the NVIDIA driver of HOST, 550.54.15, supports CUDA up to 12.4 ({NEEDED})",
        ),
        (
            GPU,
            None,
            {},
            f"the NVIDIA driver of HOST, 550.54.15, comes without libcuda.so.1 ({NEEDED})",
        ),
        (
            GPU,
            13000,
            {"CUDA_VISIBLE_DEVICES": ""},
            "no GPU is seen on HOST, since CUDA_VISIBLE_DEVICES= hides all "
            f"(NVIDIA driver: 550.54.15; {NEEDED})",
        ),
    ],
    ids=["no driver", "driver is broken", "old driver", "no libcuda", "hidden"],
)
def test_a_gpu_build_where_it_cannot_run_says_why_in_a_line(
    tmp_path, nvidia_smi, driver_cuda, variables, line
):
    said = gpu_build(tmp_path, nvidia_smi, driver_cuda, **variables)
    assert said == f"{line.replace('HOST', socket.gethostname())}; {FOR_A_CPU}"


@pytest.mark.parametrize("driver_cuda", [13000, 13010, 14000])
def test_a_gpu_build_beside_a_gpu_and_a_driver_that_supports_it_says_nothing(tmp_path, driver_cuda):
    assert gpu_build(tmp_path, GPU, driver_cuda) == ""


def test_a_torch_for_cpus_in_a_gpu_build_is_named(tmp_path):
    said = gpu_build(tmp_path, GPU, 13000, GPU_PACKAGES | {"torch": "2.13.0+cpu"})
    assert said == f"torch 2.13.0+cpu is the build for CPUs, beside a vLLM for CUDA 13.0; {FOR_A_CPU}"


def test_a_build_for_other_devices_is_left_to_vllm(tmp_path):
    assert gpu_build(tmp_path, None, None, GPU_PACKAGES | {"vllm": "0.32.0+rocm700"}) == ""


@pytest.fixture
def machine_with_a_gpu(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: x)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(environment.BACKEND_VARIABLE, raising=False)


@pytest.mark.skipif(not environment.is_cpu_build(), reason="a build for GPUs is installed")
def test_a_cpu_build_beside_a_gpu_is_told_of_unless_it_is_wanted(machine_with_a_gpu, monkeypatch, caplog):
    environment.reject_unfit_build()
    assert caplog.messages == [
        "the NVIDIA GPU of this machine is not used: the build that is installed runs on CPUs only; "
        "make setup BACKEND=gpu installs the other one"
    ]
    monkeypatch.setenv(environment.BACKEND_VARIABLE, "cpu")
    environment.reject_unfit_build()
    assert len(caplog.messages) == 1


@pytest.mark.skipif(not environment.is_cpu_build(), reason="a build for GPUs is installed")
def test_a_cpu_build_is_not_taken_for_one_that_uses_a_gpu(monkeypatch):
    monkeypatch.setenv(environment.BACKEND_VARIABLE, "gpu")
    with pytest.raises(
        ConfigError, match=r"^LASER_BACKEND=gpu: .* make setup BACKEND=gpu installs the other"
    ):
        environment.reject_unfit_build()
