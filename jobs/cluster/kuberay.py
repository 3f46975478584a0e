"""KubeRay: a RayJob that brings its own Ray cluster, and a CronJob that creates one each night.

KubeRay's own schedule (RayCronJob) is behind a feature gate; a CronJob of Kubernetes works everywhere, and
since its pod waits for the RayJob, its success is that of the night.
"""

import json
from importlib.metadata import version
from typing import Any

import yaml

from jobs.cluster.command import ClusterJob, joined, needed
from pipeline.cluster_settings import KubeRaySettings, NodeSettings
from pipeline.environment import BACKEND_VARIABLE, NO_TELEMETRY
from pipeline.errors import ConfigError
from pipeline.storage.location import CACHE_VARIABLE

Manifest = dict[str, Any]
RAYJOB_FILE = "/etc/laser/rayjob.json"
CACHE = "/cache"
START_DEADLINE_SEC = 3600  # a night that could not start within an hour is left out
CRON_POD_SEC = 3600  # what the waiting pod has beyond the run and its retries
GPU = "nvidia.com/gpu"


def render_rayjob(job: ClusterJob) -> str:
    """The run as YAML for `kubectl create -f -`."""
    return _as_yaml([rayjob(job)])


def render_cronjob(job: ClusterJob) -> str:
    """What creates the run each night, as YAML for `kubectl apply -f -`."""
    return _as_yaml([_config_map(job), *_permissions(job), cronjob(job)])


def rayjob(job: ClusterJob) -> Manifest:
    """The RayJob. Raises `ConfigError` for settings that pods cannot have."""
    kuberay = _settings(job)
    needed(kuberay.image, "cluster.kuberay.image", "an image that holds this project")
    if job.config_dir is not None:
        raise ConfigError("--config-dir: pods have no such folder; build its files into the image")
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "generateName": f"{job.title}-",
            "namespace": kuberay.namespace,
            "labels": _labels(job),
        },
        "spec": {
            "entrypoint": joined(["python", *job.words("auto", _data(job))]),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": kuberay.keep_minutes * 60,
            "activeDeadlineSeconds": _seconds(kuberay.max_hours),
            "backoffLimit": kuberay.num_retries,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},  # KubeRay makes the token and hands it to the pods
                "headGroupSpec": _head(job),
                "workerGroupSpecs": [_workers(job)],
            },
        },
    }


def cronjob(job: ClusterJob) -> Manifest:
    """A CronJob whose pod creates the RayJob and waits for it."""
    kuberay, schedule = _settings(job), job.cluster.schedule
    deadline = _seconds(kuberay.max_hours) * (kuberay.num_retries + 1) + CRON_POD_SEC
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(job),
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": START_DEADLINE_SEC,
            "successfulJobsHistoryLimit": 7,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {
                "metadata": {"labels": _labels(job)},
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": deadline,
                    "template": {"metadata": {"labels": _labels(job)}, "spec": _waiting_pod(job)},
                },
            },
        },
    }


def _settings(job: ClusterJob) -> KubeRaySettings:
    if job.cluster.kuberay is None:
        raise ConfigError("cluster.kuberay: missing; choose cluster=kuberay")
    return job.cluster.kuberay


def _data(job: ClusterJob) -> str:
    """`paths.data` in the pods. Raises `ConfigError` for a folder that is not on the claim."""
    kuberay, data = _settings(job), job.settings.paths.data
    if "://" in data:
        return data
    if kuberay.storage_claim is None:
        raise ConfigError("cluster.kuberay.storage_claim: missing; or give paths.data an object store")
    if not job.gives("paths.data"):
        return kuberay.mount
    if data != kuberay.mount and not data.startswith(kuberay.mount.rstrip("/") + "/"):
        raise ConfigError(f"paths.data={data}: must be below cluster.kuberay.mount={kuberay.mount}")
    return data


def _head(job: ClusterJob) -> Manifest:
    """The head runs the job's own process and no engine."""
    ports = [("gcs-server", 6379), ("dashboard", 8265), ("client", 10001)]
    template = _pod(job, "ray-head", _settings(job).head)
    template["spec"]["containers"][0]["ports"] = [
        {"name": name, "containerPort": port} for name, port in ports
    ]
    return {"rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"}, "template": template}


def _workers(job: ClusterJob) -> Manifest:
    kuberay = _settings(job)
    template = _pod(job, "ray-worker", kuberay.node)
    if kuberay.node_selector:
        template["spec"]["nodeSelector"] = dict(kuberay.node_selector)
    if kuberay.node.gpus:
        of_gpus = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
        template["spec"]["tolerations"] = [of_gpus, *template["spec"].get("tolerations", [])]
    return {
        "groupName": "engines",
        "replicas": kuberay.num_nodes,
        "minReplicas": kuberay.num_nodes,
        "maxReplicas": kuberay.num_nodes,
        "rayStartParams": {},
        "template": template,
    }


def _pod(job: ClusterJob, name: str, node: NodeSettings) -> Manifest:
    kuberay = _settings(job)
    container: Manifest = {
        "name": name,
        "image": kuberay.image,
        "env": [{"name": key, "value": value} for key, value in _environment(kuberay).items()],
        "resources": {"requests": _resources(node), "limits": _resources(node)},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    volumes: list[Manifest] = [
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": f"{kuberay.shared_memory_gib}Gi"},
        }
    ]
    if kuberay.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": kuberay.secret}}]
    if kuberay.cache_gib is not None:
        container["volumeMounts"].append({"name": "cache", "mountPath": CACHE})
        volumes.append({"name": "cache", "emptyDir": {"sizeLimit": f"{kuberay.cache_gib}Gi"}})
    if kuberay.storage_claim is not None:
        container["volumeMounts"].append({"name": "data", "mountPath": kuberay.mount})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": kuberay.storage_claim}})
    spec: Manifest = {"containers": [container], "volumes": volumes, **_of_all_pods(kuberay)}
    if kuberay.service_account is not None:
        spec["serviceAccountName"] = kuberay.service_account
    return {"metadata": {"labels": _labels(job)}, "spec": spec}


def _of_all_pods(kuberay: KubeRaySettings) -> Manifest:
    """What a pod needs to get its image, and a node."""
    fields: Manifest = {}
    if kuberay.image_pull_secrets:
        fields["imagePullSecrets"] = [{"name": name} for name in kuberay.image_pull_secrets]
    if kuberay.tolerations:
        fields["tolerations"] = [entry.model_dump(exclude_none=True) for entry in kuberay.tolerations]
    return fields


def _environment(kuberay: KubeRaySettings) -> dict[str, str]:
    """The head has no GPU, so what the nodes have is said, not looked for."""
    backend = "gpu" if kuberay.node.gpus else "cpu"
    ours = {**NO_TELEMETRY, BACKEND_VARIABLE: backend, "RAY_worker_niceness": "0"}
    if kuberay.cache_gib is not None:
        ours |= {CACHE_VARIABLE: f"{CACHE}/laser", "HF_HOME": f"{CACHE}/huggingface"}
    return ours | kuberay.env


def _resources(node: NodeSettings) -> dict[str, str]:
    resources = {"cpu": str(node.cpus), "memory": f"{node.memory_gib}Gi"}
    return resources | ({GPU: str(node.gpus)} if node.gpus else {})


def _waiting_pod(job: ClusterJob) -> Manifest:
    owner = {
        "JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
        "JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
    }
    container = {
        "name": "night",
        "image": _settings(job).image,
        "command": ["python", "-m", "jobs.cluster.kube_run", RAYJOB_FILE],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in owner.items()
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "rayjob", "mountPath": "/etc/laser", "readOnly": True}],
    }
    return {
        "serviceAccountName": job.title,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "rayjob", "configMap": {"name": job.title}}],
        **_of_all_pods(_settings(job)),
    }


def _config_map(job: ClusterJob) -> Manifest:
    content = json.dumps(rayjob(job), indent=2) + "\n"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job),
        "data": {"rayjob.json": content},
    }


def _permissions(job: ClusterJob) -> list[Manifest]:
    """The waiting pod may create RayJobs and look at them, and nothing else."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    account = {"kind": "ServiceAccount", "name": job.title, "namespace": _settings(job).namespace}
    role = {"apiGroup": group, "kind": "Role", "name": job.title}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(job)},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": _metadata(job), "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": _metadata(job),
            "subjects": [account],
            "roleRef": role,
        },
    ]


def _metadata(job: ClusterJob) -> Manifest:
    return {"name": job.title, "namespace": _settings(job).namespace, "labels": _labels(job)}


def _labels(job: ClusterJob) -> dict[str, str]:
    return {"app.kubernetes.io/name": "laser-knowledge", "app.kubernetes.io/instance": job.title}


def _seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


class _Dumper(yaml.SafeDumper):
    """Values that stand twice are written twice; a text of several lines stands as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _as_yaml(documents: list[Manifest]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=110)
