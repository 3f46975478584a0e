from types import SimpleNamespace

import pytest
from ray.exceptions import GetTimeoutError

from pipeline.environment import BACKEND_VARIABLE
from pipeline.errors import ConfigError, GenerationError
from pipeline.generate import ray_cluster
from pipeline.generate.ray_cluster import Node, PoolSize, nodes, size_pool, usable_cpus, with_gpus
from pipeline.settings import ClusterSettings

# cluster settings, tensor parallel size, [(cores, GPUs) of each machine], expected (workers, cores, GPUs)
SIZES = [
    ({}, 1, [(2, 0)], (1, 2, 0)),
    ({}, 1, [(7, 0)], (1, 7, 0)),
    ({}, 1, [(20, 0)], (2, 10, 0)),
    ({}, 1, [(8, 0), (64, 0)], (9, 8, 0)),
    ({}, 1, [(2, 0), (64, 0)], (8, 8, 0)),  # a small head node does not make all workers small
    ({"num_workers": 2}, 1, [(2, 0)], (2, 1, 0)),
    ({"num_workers": 2}, 1, [(9, 0)], (2, 4, 0)),
    ({"num_workers": 3}, 1, [(8, 0), (4, 0)], (3, 4, 0)),
    ({"num_workers": 3}, 1, [(7, 0), (5, 0)], (3, 3, 0)),
    ({"cpus_per_worker": 4}, 1, [(18, 0)], (4, 4, 0)),
    ({"num_workers": 1, "cpus_per_worker": 4}, 1, [(18, 0)], (1, 4, 0)),
    ({}, 1, [(16, 4)], (4, 4, 1)),
    ({}, 2, [(64, 8), (64, 8)], (8, 4, 2)),
    ({}, 2, [(64, 3), (64, 1), (8, 0)], (1, 4, 2)),  # a group of GPUs stands in one machine
    ({}, 1, [(4, 8)], (8, 0, 1)),
    ({"num_workers": 2}, 1, [(16, 4)], (2, 4, 1)),
    ({"cpus_per_worker": 8}, 1, [(64, 4)], (4, 8, 1)),
]


@pytest.mark.parametrize(("cluster", "tensor_parallel_size", "machines", "expected"), SIZES)
def test_workers_fill_the_machines(cluster, tensor_parallel_size, machines, expected):
    nodes = [Node(*machine) for machine in machines]
    assert size_pool(ClusterSettings(**cluster), tensor_parallel_size, nodes) == PoolSize(*expected)


@pytest.mark.parametrize(
    ("cluster", "tensor_parallel_size", "machine", "message"),
    [
        ({"num_workers": 3}, 1, (2, 0), "cluster.num_workers=3: at most 2"),
        ({"num_workers": 5}, 2, (64, 8), "cluster.num_workers=5: at most 4"),
        ({"cpus_per_worker": 3}, 1, (2, 0), "cluster.cpus_per_worker=3: .* at most 2 cores"),
        ({"cpus_per_worker": 9}, 1, (64, 8), "cluster.cpus_per_worker=9: at most 8"),
        ({"num_workers": 2, "cpus_per_worker": 2}, 1, (3, 0), "cluster.num_workers=2: at most 1"),
        ({}, 4, (64, 0), "engine.tensor_parallel_size=4: no machine here has a GPU"),
        ({}, 4, (64, 2), "engine.tensor_parallel_size=4: .* at most 2 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(cluster, tensor_parallel_size, machine, message):
    with pytest.raises(ConfigError, match=message):
        size_pool(ClusterSettings(**cluster), tensor_parallel_size, [Node(*machine)])


def test_workers_that_share_a_machine_do_not_bind_to_the_same_cores():
    alone = PoolSize(1, 2, 0).actor_options()["runtime_env"]["env_vars"]
    shared = PoolSize(2, 1, 0).actor_options()["runtime_env"]["env_vars"]
    assert alone["OMP_NUM_THREADS"] == "2" and "VLLM_CPU_OMP_THREADS_BIND" not in alone
    assert shared["OMP_NUM_THREADS"] == "1" and shared["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_container_quota_bounds_the_cores(tmp_path):
    quota = tmp_path / "cpu.max"
    everything = usable_cpus(tmp_path / "missing")
    quota.write_text("max 100000\n")
    assert usable_cpus(quota) == everything
    quota.write_text("100000 100000\n")
    assert usable_cpus(quota) == 1
    quota.write_text("50000 100000\n")
    assert usable_cpus(quota) == 1


def test_a_cluster_may_be_asked_for_more_workers_than_fit_now_and_auto_follows_its_machines(caplog):
    caplog.set_level("WARNING")
    wanted = ClusterSettings(address="ray:6379", num_workers=3, cpus_per_worker=2)
    assert size_pool(wanted, 1, [Node(4, 0)]) == PoolSize(3, 2, 0)
    assert "2 workers fit now; 1 more starts when machines join" in caplog.text
    auto = size_pool(ClusterSettings(address="ray:6379", cpus_per_worker=2), 1, [Node(4, 0)])
    assert auto == PoolSize(2, 2, 0, may_grow=True)
    assert auto.num_fitting([Node(4, 0), Node(7, 0), Node(1, 0)]) == 5
    assert PoolSize(1, 4, 2, may_grow=True).num_fitting([Node(64, 8), Node(8, 8), Node(64, 0)]) == 6


class Arriving:
    """Ray on a cluster whose machine with GPUs comes when it has been asked for, or never."""

    def __init__(self, comes):
        self.comes, self.asked, self.cancelled = comes, [], 0
        self.machines = [{"CPU": 8.0}]

    def remote(self, function):
        return SimpleNamespace(options=lambda **wanted: SimpleNamespace(remote=lambda: self.ask(wanted)))

    def ask(self, wanted):
        self.asked.append(wanted)
        return "ref"

    def get(self, ref, timeout):
        if not self.comes:
            raise GetTimeoutError
        self.machines.append({"CPU": 64.0, "GPU": 8.0})

    def cancel(self, ref):
        self.cancelled += 1

    def nodes(self):
        return [{"Alive": True, "Resources": resources} for resources in self.machines]


@pytest.mark.parametrize("backend", ["gpu", None])
def test_engines_that_need_gpus_wait_for_the_first_machine_that_has_some(monkeypatch, backend):
    fake = Arriving(comes=True)
    monkeypatch.setattr(ray_cluster, "ray", fake)
    monkeypatch.setattr(ray_cluster, "is_cpu_build", lambda: backend is not None)
    monkeypatch.setenv(BACKEND_VARIABLE, backend or "")
    cluster = ClusterSettings(address="ray:6379")
    machines = with_gpus(cluster, 2, nodes())
    assert fake.asked == [{"num_cpus": 0, "num_gpus": 2}]
    assert size_pool(cluster, 2, machines) == PoolSize(4, 4, 2, may_grow=True)
    with_gpus(cluster, 2, machines)
    assert len(fake.asked) == 1  # nothing to wait for


def test_the_first_machine_with_gpus_is_not_waited_for_for_ever(monkeypatch):
    fake = Arriving(comes=False)
    monkeypatch.setattr(ray_cluster, "ray", fake)
    monkeypatch.setenv(BACKEND_VARIABLE, "gpu")
    wanted = ClusterSettings(address="ray:6379", no_worker_timeout_sec=60)
    with pytest.raises(GenerationError, match=r"with 2 GPUs .* in 60 s \(cluster\.no_worker_timeout_sec\)"):
        with_gpus(wanted, 2, nodes())
    assert fake.cancelled == 1


@pytest.mark.parametrize(("backend", "address"), [("cpu", "ray:6379"), ("gpu", None)])
def test_engines_on_cpus_and_those_of_this_machine_wait_for_nothing(monkeypatch, backend, address):
    monkeypatch.setattr(ray_cluster, "ray", None)
    monkeypatch.setenv(BACKEND_VARIABLE, backend)
    assert with_gpus(ClusterSettings(address=address), 1, [Node(8, 0)]) == [Node(8, 0)]
