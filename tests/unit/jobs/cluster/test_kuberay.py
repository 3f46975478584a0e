import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.cluster.kuberay import cronjob, rayjob, render_cronjob, render_rayjob
from pipeline.errors import ConfigError

PLACE = ["cluster=kuberay", "cluster.kuberay.image=registry/laser:1"]
# The fields that manifests here use, cut out of that of KubeRay 1.7. A new one is added from the CRD.
SCHEMA = Path(__file__).parent / "rayjob_schema.json"
# A folder with KubeRay's CRDs (helm-chart/kuberay-operator/crds of its repository).
CRDS = os.environ.get("KUBERAY_CRDS")


@pytest.fixture
def full_job(make_job):
    return make_job(
        *PLACE,
        "cluster.kuberay.namespace=ml",
        "cluster.kuberay.num_nodes=5",
        "cluster.kuberay.node={cpus: 12, memory_gib: 90, gpus: 2}",
        "cluster.kuberay.secret=hub",
        "cluster.kuberay.service_account=laser",
        "cluster.kuberay.node_selector={gpu: h100}",
        "cluster.kuberay.image_pull_secrets=[registry]",
        "cluster.kuberay.env={HTTPS_PROXY: 'http://proxy:3128', OMP_NUM_THREADS: 4}",
        "cluster.kuberay.tolerations=[{key: team, operator: Equal, value: ml, effect: NoSchedule}]",
        "cluster.kuberay.cache_gib=100",
        "cluster.kuberay.max_hours=6.5",
        "cluster.schedule.cron='30 2 * * 1-5'",
        "cluster.schedule.timezone=Europe/Berlin",
        "limit=all",
        "engine.tensor_parallel_size=2",
    )


def containers(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    return [group["template"]["spec"]["containers"][0] for group in (head, worker)]


def test_the_pods_have_what_the_settings_say(full_job):
    manifest = rayjob(full_job)
    head, worker = containers(manifest)
    group = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (5, 5, 5)
    for kind in ("requests", "limits"):
        assert worker["resources"][kind] == {"cpu": "12", "memory": "90Gi", "nvidia.com/gpu": "2"}
        assert head["resources"][kind] == {"cpu": "4", "memory": "16Gi"}
    assert group["template"]["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert manifest["spec"]["activeDeadlineSeconds"] == 6.5 * 3600
    for container in (head, worker):
        assert container["image"] == "registry/laser:1"
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
        assert {"name": "LASER_BACKEND", "value": "gpu"} in container["env"]


def test_all_pods_find_their_image_and_a_node_and_ray_pods_have_a_cache(full_job):
    cluster = rayjob(full_job)["spec"]["rayClusterSpec"]
    ray_pods = [
        group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    cron_pod = cronjob(full_job)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    wanted = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
    for pod in (*ray_pods, cron_pod):
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert wanted in pod["tolerations"]
    assert "nvidia.com/gpu" in [entry["key"] for entry in ray_pods[1]["tolerations"]]
    for pod in ray_pods:
        container = pod["containers"][0]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        assert (variables["HTTPS_PROXY"], variables["OMP_NUM_THREADS"]) == ("http://proxy:3128", "4")
        assert {"name": "cache", "emptyDir": {"sizeLimit": "100Gi"}} in pod["volumes"]
        (mount,) = [entry["mountPath"] for entry in container["volumeMounts"] if entry["name"] == "cache"]
        for name in ("LASER_CACHE_DIR", "HF_HOME"):
            assert variables[name].startswith(f"{mount}/")


def test_without_a_cache_pods_have_no_volume_for_it(make_job):
    head, _ = containers(rayjob(make_job(*PLACE, "cluster.kuberay.cache_gib=null")))
    names = [entry["name"] for entry in (*head["env"], *head["volumeMounts"])]
    assert not {"cache", "LASER_CACHE_DIR", "HF_HOME"} & set(names)


def test_the_entrypoint_is_a_command_of_this_project(full_job, parsed_again):
    module, settings = parsed_again(rayjob(full_job)["spec"]["entrypoint"])
    assert module == "jobs.nightly"
    assert (settings.paths.data, settings.cluster.address, settings.limit) == ("/data", "auto", "all")
    assert settings.engine.tensor_parallel_size == 2
    assert settings.cluster.kuberay is None


def test_the_cronjob_creates_this_rayjob_and_may_do_nothing_else(full_job):
    documents = {document["kind"]: document for document in yaml.safe_load_all(render_cronjob(full_job))}
    assert json.loads(documents["ConfigMap"]["data"]["rayjob.json"]) == rayjob(full_job)
    spec = documents["CronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * 1-5", "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]
    assert pod["volumes"][0]["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
    rules = documents["Role"]["rules"]
    assert rules == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    deadline = spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert deadline > 2 * rayjob(full_job)["spec"]["activeDeadlineSeconds"]  # with one retry
    assert {document["metadata"]["namespace"] for document in documents.values()} == {"ml"}


def test_secrets_are_named_and_never_written(full_job, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_show")
    text = render_cronjob(full_job) + render_rayjob(full_job)
    assert "hf_do_not_show" not in text
    assert all(
        container["envFrom"] == [{"secretRef": {"name": "hub"}}] for container in containers(rayjob(full_job))
    )


def test_an_object_store_needs_no_claim(make_job):
    job = make_job(*PLACE, "cluster.kuberay.storage_claim=null")
    with pytest.raises(ConfigError, match="storage_claim: missing"):
        rayjob(job)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster=kuberay"], r"cluster\.kuberay\.image: missing"),
        ([*PLACE, "paths.data=/elsewhere"], r"paths\.data=/elsewhere: must be below cluster\.kuberay\.mount"),
        (["cluster=slurm"], "choose cluster=kuberay"),
    ],
)
def test_what_pods_cannot_have_is_refused(make_job, overrides, message):
    with pytest.raises(ConfigError, match=message):
        rayjob(make_job(*overrides))


def test_a_folder_on_the_claim_may_be_chosen(make_job, parsed_again):
    _, settings = parsed_again(rayjob(make_job(*PLACE, "paths.data=/data/team"))["spec"]["entrypoint"])
    assert settings.paths.data == "/data/team"


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_core_manifests_fit_the_schemas_of_kubernetes(full_job, version):
    validate = pytest.importorskip("kubernetes_validate").validate
    for document in yaml.safe_load_all(render_cronjob(full_job)):
        validate(document, version, strict=True)
    for container_of in ("headGroupSpec", "workerGroupSpecs"):
        group = rayjob(full_job)["spec"]["rayClusterSpec"][container_of]
        template = (group if isinstance(group, dict) else group[0])["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]}
        validate(pod, version, strict=True)


def test_the_rayjob_fits_the_fields_of_the_crd(full_job, make_job):
    validator = jsonschema.Draft7Validator(_closed(json.loads(SCHEMA.read_text())))
    for job in (full_job, make_job(*PLACE)):
        assert not [error.message for error in validator.iter_errors(rayjob(job))]
    wrong = rayjob(full_job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 3
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["tolerations"][0]["keys"] = "x"
    assert len(list(validator.iter_errors(wrong))) == 2  # the check can fail


@pytest.mark.skipif(CRDS is None, reason="$KUBERAY_CRDS names no folder")
def test_the_rayjob_fits_the_whole_crd_and_the_fields_are_of_it(full_job):
    crd = yaml.load((Path(CRDS or "") / "ray.io_rayjobs.yaml").read_text(), yaml.CSafeLoader)
    (schema,) = [
        version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"] if version["name"] == "v1"
    ]
    validator = jsonschema.Draft7Validator(_closed(schema))
    assert not [error.message for error in validator.iter_errors(rayjob(full_job))]
    fields = json.loads(SCHEMA.read_text())
    template = fields.pop("definitions")["podTemplate"]
    del fields["$comment"]
    _assert_within(fields, schema, template)


def _assert_within(fields, schema, template):
    """All that `fields` say is said by `schema`; a reference stands for `template`."""
    if isinstance(fields, dict):
        for key, value in template.items() if "$ref" in fields else fields.items():
            _assert_within(value, schema[key], template)
    else:
        assert fields == schema


def _closed(schema):
    """The schema with unknown fields forbidden, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def test_the_cronjob_is_valid_yaml_that_kubectl_would_read(full_job):
    assert cronjob(full_job)["apiVersion"] == "batch/v1"
    assert "&id" not in render_cronjob(full_job)
