"""The configuration as typed objects: one class for each Hydra group, unknown keys forbidden.

`jobs/config.py` builds a `RunSettings` once, at the edge; below that line no DictConfig is seen.
Every field's bound stands here, so that an error can name it.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Kind = Literal["user", "item"]
KINDS: tuple[Kind, Kind] = ("item", "user")


class Settings(BaseModel):
    """Base of all groups: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ItemGroupSettings(Settings):
    """Items are grouped by the first of their categories that a group names (LASER, section 3.2)."""

    groups: dict[str, list[str]] = Field(description="group name -> categories, in order of precedence")
    default_group: str = "other"


class UserGroupSettings(Settings):
    """Users are clustered on factors of the interaction matrix."""

    num_groups: int = Field(ge=1)
    num_factors: int = Field(ge=1, le=512)
    seed: int = 0


class DatasetSettings(Settings):
    """One domain: where its data lies, what its words are, how its entities are grouped."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    reader: Literal["movielens"]
    raw: str | None = Field(default=None, description="folder with the raw files; null: the embedded sample")
    max_bad_fraction: Fraction = 0.05
    min_rating: float
    max_rating: float
    item_word: str = Field(description="what prompts call an item, for example 'movie'")
    item_groups: ItemGroupSettings
    user_groups: UserGroupSettings


class PromptSettings(Settings):
    """How the prompt of one kind of entity is written."""

    system: str | None = None
    template: str = Field(description="Jinja template of the user message")
    max_tokens: int = Field(ge=1, description="upper bound on generated tokens")


class KnowledgeSettings(Settings):
    """A prompt set."""

    name: str
    max_history: int = Field(ge=1, description="most recent ratings that a user prompt may show")
    user: PromptSettings
    item: PromptSettings

    def prompt(self, kind: Kind) -> PromptSettings:
        """The prompt settings for entities of `kind`."""
        return self.user if kind == "user" else self.item


class RepetitionDetectionSettings(Settings):
    """Ends an output whose last `min_count` patterns of at most `max_pattern_size` tokens are the same."""

    max_pattern_size: int = Field(ge=1)
    min_pattern_size: int = Field(default=1, ge=1)
    min_count: int = Field(ge=2)


class SamplingSettings(Settings):
    """How a token is chosen. Temperature 0 is greedy decoding."""

    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    repetition_detection: RepetitionDetectionSettings | None = None


class ModelSettings(Settings):
    """The target model."""

    name: str
    path: str = Field(description="local folder, hub id, or 'package:<name>' for an embedded model")
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int = Field(ge=64)
    trust_remote_code: bool = False
    chat_template_args: dict[str, bool | str | int] = {}
    sampling: SamplingSettings = SamplingSettings()


class EngineSettings(Settings):
    """vLLM engine options. None of them changes what a greedy decoding writes."""

    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    enforce_eager: bool
    enable_prefix_caching: bool = True
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    cpu_kv_cache_gib: int = Field(default=4, ge=1)


class DrafterSettings(Settings):
    """Who proposes draft tokens. `none` decodes one token at a time."""

    name: Literal["laser", "none", "ngram", "suffix"]
    max_draft_tokens: int = Field(ge=0, le=64)

    @model_validator(mode="after")
    def _drafting_needs_room(self) -> "DrafterSettings":
        if self.name != "none" and self.max_draft_tokens < 1:
            raise ValueError("drafter.max_draft_tokens must be at least 1 unless drafter=none")
        return self


class AcceptanceSettings(Settings):
    """Which draft tokens the target model's verification takes (LASER, section 3.3)."""

    name: Literal["relaxed", "strict"]
    top_k: int = Field(ge=1, le=64)
    min_prob: Fraction

    @model_validator(mode="after")
    def _strict_is_argmax(self) -> "AcceptanceSettings":
        if self.name == "strict" and self.top_k != 1:
            raise ValueError("acceptance.top_k must be 1 with acceptance=strict; use acceptance=relaxed")
        return self

    @property
    def label(self) -> str:
        """How rows name the rule: `strict` or `relaxed(k=2,p=0.1)`."""
        return "strict" if self.top_k == 1 else f"relaxed(k={self.top_k},p={self.min_prob:g})"


class PlanSettings(Settings):
    """How work is cut."""

    shard_size: int = Field(ge=1, description="rows of a shard")


class ClusterSettings(Settings):
    """Where workers run."""

    address: str | None = Field(default=None, description="null: Ray on this machine only")
    num_workers: int | Literal["auto"] = "auto"
    cpus_per_worker: int | Literal["auto"] = "auto"
    max_shard_attempts: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _positive(self) -> "ClusterSettings":
        for field in ("num_workers", "cpus_per_worker"):
            value = getattr(self, field)
            if value != "auto" and value < 1:
                raise ValueError(f"cluster.{field} must be 'auto' or at least 1")
        return self


class PathsSettings(Settings):
    """Where results go."""

    data: str


class RunSettings(Settings):
    """Everything a run needs to know."""

    dataset: DatasetSettings
    knowledge: KnowledgeSettings
    model: ModelSettings
    engine: EngineSettings
    drafter: DrafterSettings
    acceptance: AcceptanceSettings
    plan: PlanSettings
    cluster: ClusterSettings
    paths: PathsSettings
    limit: Annotated[int, Field(ge=1)] | Literal["all"]
    run_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    offset: int = Field(default=0, ge=0, description="entities of the sample's ranking to pass over")
    history_cutoff: datetime | None = None
    max_failed_fraction: Fraction = 0.01

    @field_validator("history_cutoff", mode="before")
    @classmethod
    def _iso_date_in_utc(cls, value: object) -> datetime | None:
        """Dates without a zone are UTC. Numbers are refused: pydantic would take 1998 for a Unix time."""
        if value is None:
            return None
        try:
            date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError as error:
            raise ValueError("must be an ISO date, for example 1998-03-01 or 1998-03-01T12:00Z") from error
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)

    @property
    def acceptance_label(self) -> str:
        """How rows name the rule in force: only LASER's verification can be relaxed."""
        return self.acceptance.label if self.drafter.name == "laser" else "strict"
