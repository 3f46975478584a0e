"""What this machine is, and the environment variables that keep libraries from phoning home.

Call `silence_telemetry` before vLLM, Ray or transformers is imported: they read these once, at import.
"""

import ctypes
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

Backend = Literal["cpu", "gpu"]
BACKEND_VARIABLE = "LASER_BACKEND"
CONFIG_DIR_VARIABLE = "LASER_CONFIG_DIR"

NO_TELEMETRY = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# One thread for each process, bound to no core: vLLM would give a single engine every core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
NO_DEVICE = ("-1", "NoDevFiles")  # how CUDA_VISIBLE_DEVICES says none
CudaVersion = tuple[int, int]
# The oldest driver for each major version of CUDA, by the table of minor version compatibility of NVIDIA.
OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
NO_HUB = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def silence_telemetry() -> None:
    """Turn usage statistics off in this process and its children, unless the user has set them."""
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)


def forbid_hub_access() -> None:
    """Keep this process's children, and libraries imported from now on, from asking the model hub."""
    os.environ.update(NO_HUB)


def worker_environment() -> dict[str, str]:
    """The variables of this module as they stand now, for workers that do not inherit them (Ray)."""
    telemetry = {name: os.environ.get(name, value) for name, value in NO_TELEMETRY.items()}
    return telemetry | {name: os.environ[name] for name in NO_HUB if name in os.environ}


def engine_environment() -> dict[str, str]:
    """What must be set before the process of a CPU engine starts.

    Intel's OpenMP, which comes with torch's CPU build, decodes faster than GNU's: steps of 1 to 64 requests
    took 7 to 15 % less time, interleaved on two cores. Its threads wait without holding a core.
    """
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if not is_cpu_build() or not library.exists() or "LD_PRELOAD" in os.environ:
        return {}
    return {"LD_PRELOAD": str(library), "KMP_BLOCKTIME": "1"}


@contextmanager
def variables_for_children(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started in the block; afterwards they are as before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def machine_backend() -> Backend:
    """`gpu` if this machine has an NVIDIA GPU and the installed vLLM is not the CPU build, else `cpu`.

    $LASER_BACKEND decides before that: the driver of a cluster may run on a node without a GPU.
    """
    given = os.environ.get(BACKEND_VARIABLE)
    if given in ("cpu", "gpu"):
        return "gpu" if given == "gpu" else "cpu"
    return "gpu" if num_nvidia_gpus() and not is_cpu_build() else "cpu"


def is_cpu_build() -> bool:
    """Whether what is installed cannot use a GPU, whatever the machine has."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def num_nvidia_gpus() -> int:
    """The GPUs of this machine, or as many as CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(bool(name.strip()) and name.strip() not in NO_DEVICE for name in visible.split(","))
    return sum(line.startswith("GPU ") for line in _nvidia_smi("-L"))


def reject_unfit_build() -> None:
    """Raise `ConfigError` if engines of what is installed cannot run on this machine.

    Asked before anything is loaded: a build for GPUs finds out late, with "Device string must not be empty".
    A build for CPUs on a machine with a GPU works; a warning says what is left unused, unless $LASER_BACKEND
    asks for the CPU.
    """
    given = os.environ.get(BACKEND_VARIABLE)
    if not is_cpu_build():
        if (misfit := _why_no_gpu()) is not None:
            raise ConfigError(f"{misfit}; for a CPU, make setup BACKEND=cpu installs the other build")
    elif given == "gpu":
        raise ConfigError(
            f"{BACKEND_VARIABLE}=gpu: the build that is installed runs on CPUs only; make setup BACKEND=gpu "
            "installs the other one"
        )
    elif given != "cpu" and num_nvidia_gpus():
        logger.warning(
            "the NVIDIA GPU of this machine is not used: the build that is installed runs on CPUs only; "
            "make setup BACKEND=gpu installs the other one"
        )


def _why_no_gpu() -> str | None:
    """Why the build for GPUs that is installed finds none that it can use; None if it finds one."""
    build, supported = _cuda_of_build(), _cuda_of_driver()
    if build is None:
        return None
    version = _driver_version()
    needed = f"needed: {OLDEST_DRIVER.get(build[0], 'one')} or newer, for CUDA {_dotted(build)}"
    if not num_nvidia_gpus():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f", since CUDA_VISIBLE_DEVICES={visible} hides all"
        return (
            f"no GPU is seen on {socket.gethostname()}{hidden} (NVIDIA driver: {version or 'none'}; {needed})"
        )
    if supported is None or supported[0] < build[0]:
        limit = f"supports CUDA up to {_dotted(supported)}" if supported else "comes without libcuda.so.1"
        return (
            f"the NVIDIA driver of {socket.gethostname()}, {version or 'of no version'}, {limit} ({needed})"
        )
    torch = _versions().get("torch", "")
    if torch.endswith("+cpu"):
        return f"torch {torch} is the build for CPUs, beside a vLLM for CUDA {_dotted(build)}"
    return None


def _dotted(version: CudaVersion) -> str:
    return ".".join(map(str, version))


def _cuda_of_build() -> CudaVersion | None:
    """The version of CUDA that the installed vLLM needs; None if it is built for something else.

    Builds for other devices name them in their version, such as 0.32.0+rocm700. Nothing is loaded: torch is
    built for the same CUDA, or, where pip found its build for CPUs first, the toolkit is installed beside it.
    """
    versions = _versions()
    device = versions.get("vllm", "").partition("+")[2]
    if not {"vllm", "cuda-toolkit"} <= versions.keys() or (device and not device.startswith("cu")):
        return None
    major, minor = versions["cuda-toolkit"].split(".")[:2]
    return int(major), int(minor)


def _versions() -> dict[str, str]:
    """The versions of what is installed of vLLM, torch and the CUDA toolkit."""
    found = {}
    for name in ("vllm", "torch", "cuda-toolkit"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _cuda_of_driver() -> CudaVersion | None:
    """The newest version of CUDA that the driver supports, NVIDIA's compatibility package included.

    None without a driver.
    """
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else (number.value // 1000, number.value % 1000 // 10)


def _driver_version() -> str | None:
    """The version of the NVIDIA driver, such as `580.65.06`; None without one."""
    lines = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return lines[0] if lines and lines[0][:1].isdigit() else None


def _nvidia_smi(*arguments: str) -> list[str]:
    """The lines that nvidia-smi prints; none where there is no nvidia-smi."""
    command = ["nvidia-smi", *arguments]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return printed.splitlines()


def memory_shortage(error: Exception, gpu_fraction: float, cpu_bytes: int) -> str | None:
    """What others use of the memory that this process failed to get, with `error`; None if it lacks none.

    Measured, not read from the error's message. Who wants more than there is in all (`gpu_fraction` of each
    GPU, or `cpu_bytes` beside what this process has) is not short of memory: the settings are wrong.
    """
    if isinstance(error, OSError):  # a file
        return None
    found: list[tuple[float, float, float, str]] = []  # free or this process's own; wanted; in all; where
    if machine_backend() == "gpu":
        import torch

        with suppress(RuntimeError):  # no GPU answers: memory is not what is missing
            for number in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(number)
                own = torch.cuda.memory_reserved(number)
                found.append((free + own, gpu_fraction * total, total, f"GPU {number} of "))
    else:
        import psutil

        memory, own = psutil.virtual_memory(), psutil.Process().memory_info().rss
        found.append((memory.available + own, cpu_bytes + own, memory.total, ""))
    for left, wanted, whole, where in found:
        if left < wanted <= whole:
            used = f"{(whole - left) / 1e9:.1f} of {whole / 1e9:.1f} GB used"
            return f"no memory: {used} on {where}{socket.gethostname()}, and {wanted / 1e9:.1f} GB wanted"
    return None
