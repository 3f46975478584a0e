"""Ray: on this machine only, or a cluster; and how many workers of what size it can hold."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError

from pipeline.environment import (
    BACKEND_VARIABLE,
    engine_environment,
    is_cpu_build,
    num_nvidia_gpus,
    reject_unfit_build,
    worker_environment,
)
from pipeline.errors import ConfigError, GenerationError, MachineError
from pipeline.generate.local_ray import local_ray
from pipeline.generate.run_log import LOG_FORMAT, ray_output_in
from pipeline.printable import plural
from pipeline.settings import ClusterSettings, RunSettings
from pipeline.stages import stage
from pipeline.termination import sigterm_handler_kept

logger = logging.getLogger(__name__)

CPUS_FOR_A_WORKER = 8  # a CPU engine gains little from more cores, so a large machine gets more workers
MAX_CPUS_BESIDE_A_GPU = 4  # tokenizing, drafting and scheduling
REACH_SEC = 3.0  # a raylet that does not take a connection so long is lost
PROCESS_DIED = "the worker process died"
# How Ray tells how full a machine was when it ended a worker.
MEMORY_USED = re.compile(r"\(IP: (?P<node>[^,)]+)[^)]*\) was (?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB")
OBJECT_STORE_BYTES = 128 * 2**20  # rows go by file, not through Ray; its default takes a third of the memory


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster lends."""

    num_cpus: int
    num_gpus: int


@dataclass(frozen=True)
class PoolSize:
    """How many workers, and what each reserves."""

    num_workers: int
    cpus_per_worker: int
    gpus_per_worker: int
    may_grow: bool = False  # machines that join are used too

    def num_fitting(self, nodes: list[Node]) -> int:
        """How many workers of this size `nodes` hold."""
        return sum(self._num_on(node) for node in nodes)

    def _num_on(self, node: Node) -> int:
        on_cpus = node.num_cpus // self.cpus_per_worker if self.cpus_per_worker else node.num_gpus
        return min(on_cpus, node.num_gpus // self.gpus_per_worker) if self.gpus_per_worker else on_cpus

    def actor_options(self) -> dict[str, Any]:
        """Ray options of one worker; its threads are as many as its cores."""
        environment = {
            **worker_environment(),  # before a worker imports anything, so that no library asks home
            **engine_environment(),
            "OMP_NUM_THREADS": str(max(1, self.cpus_per_worker)),
        }
        if self.num_workers > 1 or self.may_grow:  # vLLM would bind each worker to the same cores
            environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        return {
            "num_cpus": self.cpus_per_worker,
            "num_gpus": self.gpus_per_worker,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": environment},
        }


def size_pool(cluster: ClusterSettings, tensor_parallel_size: int, nodes: list[Node]) -> PoolSize:
    """One worker for each `tensor_parallel_size` GPUs of a machine; without GPUs, for each set of its cores.

    Raises `ConfigError` if the machines cannot hold what is asked for.
    """
    if any(node.num_gpus for node in nodes):
        return _size_on_gpus(cluster, tensor_parallel_size, nodes)
    if tensor_parallel_size > 1:
        raise ConfigError(f"engine.tensor_parallel_size={tensor_parallel_size}: no machine here has a GPU")
    return _size_on_cpus(cluster, nodes)


def reject_what_does_not_fit(settings: RunSettings) -> None:
    """Raise `ConfigError` for workers that this machine cannot hold, or a build of vLLM that cannot run here:
    before a run is begun, and without Ray.

    What a cluster holds is known when it answers.
    """
    if settings.cluster.address is None and not ray.is_initialized():
        reject_unfit_build()
    num_gpus = num_nvidia_gpus() if uses_gpus() else 0
    is_known = num_gpus > 0 or not uses_gpus()  # Ray may find GPUs where there is no nvidia-smi
    if settings.cluster.address is None and is_known and not ray.is_initialized():
        size_pool(settings.cluster, settings.engine.tensor_parallel_size, [Node(usable_cpus(), num_gpus)])


def _size_on_gpus(cluster: ClusterSettings, tensor_parallel_size: int, nodes: list[Node]) -> PoolSize:
    fitting = [node for node in nodes if node.num_gpus >= tensor_parallel_size]
    if not fitting:
        largest = max(node.num_gpus for node in nodes)
        raise ConfigError(
            f"engine.tensor_parallel_size={tensor_parallel_size}: a machine here has at most {largest} GPUs"
        )
    capacity = sum(node.num_gpus // tensor_parallel_size for node in fitting)
    share = min(node.num_cpus // (node.num_gpus // tensor_parallel_size) for node in fitting)
    if cluster.cpus_per_worker == "auto":
        num_cpus = min(share, MAX_CPUS_BESIDE_A_GPU)
    elif cluster.cpus_per_worker > share:
        raise ConfigError(f"cluster.cpus_per_worker={cluster.cpus_per_worker}: at most {share} here")
    else:
        num_cpus = cluster.cpus_per_worker
    return PoolSize(_at_most(capacity, cluster), num_cpus, tensor_parallel_size, _may_grow(cluster))


def _size_on_cpus(cluster: ClusterSettings, nodes: list[Node]) -> PoolSize:
    cores = [node.num_cpus for node in nodes if node.num_cpus > 0] or [1]
    if cluster.cpus_per_worker != "auto":
        cpus = cluster.cpus_per_worker
        if cpus > max(cores):
            raise ConfigError(
                f"cluster.cpus_per_worker={cpus}: a machine here has at most {plural(max(cores), 'core')}"
            )
    elif cluster.num_workers != "auto":
        cpus = _largest_share(cluster.num_workers, cores)
    else:
        large = [count for count in cores if count >= CPUS_FOR_A_WORKER] or [max(cores)]
        cpus = min(count // max(1, count // CPUS_FOR_A_WORKER) for count in large)
    num_workers = _at_most(sum(count // cpus for count in cores), cluster)
    return PoolSize(num_workers, cpus, 0, _may_grow(cluster))


def _largest_share(num_workers: int, cores: list[int]) -> int:
    """The most cores each of `num_workers` can have; 1 if there are too few."""
    for cpus in range(max(1, sum(cores) // num_workers), 1, -1):
        if sum(count // cpus for count in cores) >= num_workers:
            return cpus
    return 1


def _at_most(capacity: int, cluster: ClusterSettings) -> int:
    if cluster.num_workers == "auto":
        return capacity
    if cluster.num_workers > capacity:
        if cluster.address is None:
            raise ConfigError(f"cluster.num_workers={cluster.num_workers}: at most {capacity} fit here")
        waiting = cluster.num_workers - capacity
        logger.warning(
            "%s now; %s when machines join",
            plural(capacity, "worker fits", "workers fit"), plural(waiting, "more starts", "more start"),
        )  # fmt: skip
    return cluster.num_workers


def _may_grow(cluster: ClusterSettings) -> bool:
    return cluster.address is not None and cluster.num_workers == "auto"


def with_gpus(cluster: ClusterSettings, num_gpus: int, found: list[Node]) -> list[Node]:
    """`found`, or, where engines need GPUs and no machine of a cluster has any yet, those that are there
    once one has come.

    What is asked of Ray meanwhile tells an autoscaler which machine is missing. Raises `GenerationError`
    after `cluster.no_worker_timeout_sec`.
    """
    if cluster.address is None or not uses_gpus():
        return found
    while not any(node.num_gpus for node in found):
        logger.warning("no machine of the cluster has a GPU yet; waiting for one with %d", num_gpus)
        arrival = ray.remote(_arrived).options(num_cpus=0, num_gpus=num_gpus).remote()
        try:
            ray.get(arrival, timeout=cluster.no_worker_timeout_sec)
        except GetTimeoutError as error:
            ray.cancel(arrival)
            waited = f"{cluster.no_worker_timeout_sec:.0f} s (cluster.no_worker_timeout_sec)"
            raise GenerationError(
                f"no machine with {num_gpus} GPUs joined the cluster in {waited}"
            ) from error
        found = nodes()
    return found


def _arrived() -> None:
    """Runs on the machine that was waited for."""


@contextmanager
def ray_session(cluster: ClusterSettings, run_log: Path) -> Iterator[list[Node]]:
    """Connect to Ray, or start it, and yield its machines; Ray's own output goes to `run_log`.

    A Ray that this process has initialized already is used as it is and left running.
    """
    with ray_output_in(run_log), ExitStack() as session:
        if not ray.is_initialized():
            what = f"connecting to Ray at {cluster.address}" if cluster.address else "starting Ray"
            with sigterm_handler_kept(), stage(what):  # Ray's own would end the process with exit code 15
                session.enter_context(_connected(cluster.address, run_log))
        yield nodes()


@contextmanager
def _connected(address: str | None, run_log: Path) -> Iterator[None]:
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "logging_format": LOG_FORMAT,
    }
    if address is None:
        options = {
            "num_cpus": usable_cpus(),
            "num_gpus": 0 if is_cpu_build() else None,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        with local_ray(options | quiet, quiet, run_log):
            yield
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = f"cluster.address={address}: no Ray cluster answers there ({error})"
        is_no_address = isinstance(error, ValueError)
        raise (ConfigError(reason) if is_no_address else MachineError(reason)) from error
    try:
        yield
    finally:
        ray.shutdown()


def is_node_alive(node_id: str) -> bool:
    """Whether the machine `node_id` is there: Ray counts it in, and its raylet can be reached.

    Ray needs many seconds to see that a machine has lost its power; its workers are gone at once.
    """
    found = [node for node in ray.nodes() if node["NodeID"] == node_id and node["Alive"]]
    return bool(found) and _is_reachable(found[0]["NodeManagerAddress"], found[0]["NodeManagerPort"])


def cause_of_death(error: RayError) -> str:
    """In a few words why a worker's process is gone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if isinstance(error, OutOfMemoryError):
        found = MEMORY_USED.search(lines[0])
        if found is None:
            return f"no memory: {lines[0]}"
        used, limit = float(found["used"]), float(found["limit"])
        return f"no memory: {used:.1f} of {limit:.1f} GB used on {found['node']}; Ray ended the worker"
    raised = "creation task" in lines[0]  # an exception, which Ray tells in the last line
    return f"{PROCESS_DIED} ({lines[-1]})" if raised else PROCESS_DIED


def nodes_of_this_machine() -> set[str]:
    """Ray's names of the nodes that share the driver's machine: its own, and others started beside it."""
    address_of = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    here = address_of.get(ray.get_runtime_context().get_node_id())
    return {node_id for node_id, address in address_of.items() if address == here}


def _is_reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=REACH_SEC).close()
    except OSError:
        return False
    return True


def nodes() -> list[Node]:
    """The machines of the cluster now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus_usable = uses_gpus()
    return [Node(int(found.get("CPU", 0)), int(found.get("GPU", 0)) if gpus_usable else 0) for found in alive]


def uses_gpus() -> bool:
    """Whether engines run on GPUs: as $LASER_BACKEND says, or else as what is installed can."""
    given = os.environ.get(BACKEND_VARIABLE)
    return given == "gpu" if given in ("cpu", "gpu") else not is_cpu_build()


def usable_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    num_cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(num_cpus, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return num_cpus
