"""How a job reaches a cluster: the settings from which `jobs/cluster` renders manifests.

None of them changes what is generated. A running job reads `ClusterSettings` (pipeline/settings.py) only.
"""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from pipeline.settings_base import Settings

CRON_FIELD = r"[0-9*/,\-]+"
KUBERNETES_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUIET_TEXT = r"^[^\s%'\"\\]+$"  # safe in a crontab line and in a shell comment
PositiveInt = Annotated[int, Field(ge=1)]
KubernetesName = Annotated[str, Field(pattern=KUBERNETES_NAME)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
VariableValue = Annotated[str, Field(coerce_numbers_to_str=True)]


class ScheduleSettings(Settings):
    """When the night begins."""

    cron: str = Field(default="0 1 * * *", pattern=rf"^{CRON_FIELD}( {CRON_FIELD}){{4}}$")
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (LookupError, ValueError, OSError) as error:
            raise ValueError("must be a time zone such as UTC or Europe/Berlin") from error
        return name


class NodeSettings(Settings):
    """What one machine (a pod, a Slurm node) lends to Ray."""

    cpus: PositiveInt
    memory_gib: PositiveInt
    gpus: Annotated[int, Field(ge=0)] = 0


class RayJobsSettings(Settings):
    """A Ray cluster that runs already, reached through its dashboard."""

    dashboard: str = Field(default="http://127.0.0.1:8265", pattern=r"^https?://\S+$")
    upload_code: bool = Field(
        default=True, description="send this checkout; false: the nodes have it installed"
    )
    backend: Literal["cpu", "gpu"] | None = Field(default=None, description="null: what the head node has")


class TolerationSettings(Settings):
    """A taint of nodes that pods may run on nevertheless, in the words of Kubernetes."""

    key: str | None = Field(default=None, description="null, with Exists: every taint")
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class KubeRaySettings(Settings):
    """A Ray cluster that KubeRay brings up for each run. Memory in GiB, times in hours and minutes."""

    image: str | None = Field(default=None, description="holds this project; the same for all pods")
    namespace: str = Field(default="default", pattern=KUBERNETES_NAME)
    num_nodes: PositiveInt = 1
    node: NodeSettings
    head: NodeSettings
    shared_memory_gib: PositiveInt = 8
    storage_claim: str | None = Field(default=None, pattern=KUBERNETES_NAME, description="ReadWriteMany")
    mount: str = Field(default="/data", pattern=r"^/\S*$", description="where the claim is mounted")
    secret: str | None = Field(default=None, pattern=KUBERNETES_NAME, description="its keys become variables")
    service_account: str | None = Field(default=None, pattern=KUBERNETES_NAME)
    image_pull_secrets: list[KubernetesName] = []
    env: dict[VariableName, VariableValue] = Field(default={}, description="more variables of the Ray pods")
    cache_gib: PositiveInt | None = Field(default=64, description="null: in the container's own layer")
    node_selector: dict[str, str] = {}
    tolerations: list[TolerationSettings] = Field(default=[], description="of all pods")
    max_hours: Annotated[float, Field(gt=0)] = 12.0
    num_retries: Annotated[int, Field(ge=0)] = 1
    keep_minutes: Annotated[int, Field(ge=0)] = 10


class SlurmSettings(Settings):
    """A Ray cluster that a batch job brings up over its nodes. `checkout` and `paths.data` are shared."""

    num_nodes: PositiveInt = 1
    node: NodeSettings
    checkout: str | None = Field(default=None, pattern=QUIET_TEXT, description="null: this folder")
    partition: str | None = Field(default=None, pattern=QUIET_TEXT)
    account: str | None = Field(default=None, pattern=QUIET_TEXT)
    max_hours: Annotated[float, Field(gt=0)] = 12.0
    setup: list[str] = Field(default=[], description="shell lines before Ray starts, such as module load")


class CrontabSettings(Settings):
    """One machine and its cron."""

    checkout: str | None = Field(default=None, pattern=QUIET_TEXT, description="null: this folder")
    mail_to: str | None = Field(default=None, pattern=QUIET_TEXT, description="who hears of a failed night")


class AirflowSettings(Settings):
    """A DAG of one task that submits the night to a running Ray cluster."""

    checkout: str | None = Field(default=None, pattern=QUIET_TEXT, description="null: this folder")
    dag_id: str = Field(default="knowledge_nightly", pattern=r"^[A-Za-z0-9_.-]+$")
    num_retries: Annotated[int, Field(ge=0)] = 1
    max_hours: Annotated[float, Field(gt=0)] = 12.0
