"""The configuration as typed objects: one class for each Hydra group, unknown keys forbidden.

`jobs/config.py` builds a `RunSettings` once, at the edge; below that line no DictConfig is seen.
Every field's bound stands here, so that an error can name it.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.acceptance_settings import AcceptanceSettings
from pipeline.bench_settings import BenchSettings
from pipeline.cluster_settings import (
    AirflowSettings,
    CrontabSettings,
    KubeRaySettings,
    RayJobsSettings,
    ScheduleSettings,
    SlurmSettings,
)
from pipeline.encoder_settings import EncoderSettings, ExportSettings
from pipeline.evaluation_settings import EvaluationSettings
from pipeline.publish_settings import NightlySettings, PublishSettings
from pipeline.quality_settings import QualitySettings
from pipeline.settings_base import Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Kind = Literal["user", "item"]
CutoffWord = Literal["today", "yesterday"]
Duplicates = Literal["first", "last", "error"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # becomes part of file names
KINDS: tuple[Kind, Kind] = ("item", "user")
PromptForm = Literal["large", "small"]
PROMPT_FORMS: tuple[PromptForm, PromptForm] = ("large", "small")
DEFAULT_PROMPT_FORM: PromptForm = "large"


class ItemGroupSettings(Settings):
    """Items are grouped by the first of their categories that a group names (LASER, section 3.2)."""

    attribute: str | None = Field(default=None, description="an attribute to group by; null: the categories")
    groups: dict[str, list[str]] = Field(default={}, description="group -> values, in order of precedence")
    num_largest: int = Field(default=0, ge=0, description="so many most frequent values get a group each")
    default_group: str = "other"


class UserGroupSettings(Settings):
    """Users are clustered on factors of the interaction matrix."""

    num_groups: int = Field(default=20, ge=1)
    num_factors: int = Field(default=32, ge=1, le=512)
    seed: int = 0


class RawTableSettings(Settings):
    """Files of one table. Columns are named as the files name them."""

    files: str | list[str] = Field(
        description="paths, patterns (*.csv.gz) or fsspec URIs; relative to dataset.raw"
    )
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    separator: str | None = Field(default=None, min_length=1, description="between fields of text files")
    columns: list[str] = Field(default=[], description="column names, for text files without a header")
    escape: str | None = Field(default=None, min_length=1, max_length=1, description="escapes a quote")
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    null_values: list[str] = Field(default=["", "NULL", "\\N"], description="texts that stand for nothing")


class CategoriesColumnSettings(Settings):
    """The column that holds an item's categories: a list, or a text to be split."""

    column: str
    separator: str | None = Field(default=None, min_length=1)


class UsersTableSettings(RawTableSettings):
    """What is known of users. `attributes`: what prompts call it -> column."""

    id: str
    duplicates: Duplicates = Field(default="first", description="which of a user's rows counts")
    attributes: dict[str, str] = {}


class ItemsTableSettings(RawTableSettings):
    """The items. `attributes`: what prompts call it -> column; `year` is shown behind the title."""

    id: str
    duplicates: Duplicates = Field(default="first", description="which of an item's rows counts")
    title: str
    categories: str | CategoriesColumnSettings | None = None
    attributes: dict[str, str] = {}


class RatingColumnSettings(Settings):
    """Explicit feedback; a row with one of `implicit_values`, or with no value, is implicit feedback."""

    column: str
    implicit_values: list[str] = []


class TimestampColumnSettings(Settings):
    """When it happened. `iso` takes dates and times as ISO 8601 writes them, in UTC unless they say."""

    column: str
    unit: Literal["s", "ms", "us", "iso"] = "s"


class InteractionsTableSettings(RawTableSettings):
    """Who met what. Without a timestamp the order of the rows stands for the order in time."""

    user: str
    item: str
    rating: str | RatingColumnSettings | None = None
    timestamp: str | TimestampColumnSettings | None = None
    text: str | None = Field(default=None, description="what the user wrote, such as a review; null: nothing")


class TabularSettings(Settings):
    """A domain in tables. Without a users table users are those who interacted."""

    items: ItemsTableSettings
    interactions: InteractionsTableSettings
    users: UsersTableSettings | None = None
    k_core: int = Field(default=1, ge=1, description="keep users and items with so many interactions each")


class AmazonSettings(Settings):
    """Amazon reviews and metadata; the layout (2014, 2018, 2023) is recognized unless named."""

    reviews: str | list[str]
    metadata: str | list[str]
    layout: Literal["auto", 2014, 2018, 2023] = "auto"
    k_core: int = Field(default=5, ge=1)


class DatasetSettings(Settings):
    """One domain: where its data lies, what its words are, how its entities are grouped."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    reader: Literal["movielens", "tabular", "amazon"]
    raw: str | None = Field(default=None, description="folder of the raw files; null: docs/new-domain.md")
    max_bad_fraction: Fraction = 0.05
    min_rating: float | None = Field(default=None, description="null, as max_rating: feedback is implicit")
    max_rating: float | None = None
    item_word: str = Field(min_length=1, description="what prompts call an item, for example 'movie'")
    tabular: TabularSettings | None = Field(default=None, description="reader=tabular: files and columns")
    amazon: AmazonSettings | None = Field(default=None, description="reader=amazon: files")
    item_groups: ItemGroupSettings = ItemGroupSettings()
    user_groups: UserGroupSettings = UserGroupSettings()

    @model_validator(mode="after")
    def _reader_has_its_section(self) -> "DatasetSettings":
        for reader in ("tabular", "amazon"):
            if (self.reader == reader) != (getattr(self, reader) is not None):
                rule = "missing" if self.reader == reader else "must be null"
                raise ValueError(f"dataset.{reader}: {rule} with dataset.reader={self.reader}")
        return self

    @model_validator(mode="after")
    def _ratings_have_a_range(self) -> "DatasetSettings":
        is_explicit = self.tabular is None or self.tabular.interactions.rating is not None
        if is_explicit and (self.min_rating is None or self.max_rating is None):
            lacking = "min_rating" if self.min_rating is None else "max_rating"
            raise ValueError(f"dataset.{lacking}: missing; the ratings need a range")
        return self

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """The ends of the rating scale; None where feedback is implicit."""
        if self.min_rating is None or self.max_rating is None:
            return None
        return self.min_rating, self.max_rating


class JsonOutputSettings(Settings):
    """An answer that should be one JSON object with these keys, each a text."""

    keys: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    constrained: bool = Field(default=False, description="let the model write nothing but such an object")

    @field_validator("keys")
    @classmethod
    def _different(cls, keys: list[str]) -> list[str]:
        if len(set(keys)) < len(keys):
            raise ValueError("must be different from each other")
        return keys


class PromptSettings(Settings):
    """How the prompt of one kind of entity is written."""

    system: str | None = None
    template: str = Field(description="Jinja template of the user message")
    max_tokens: int = Field(ge=1, description="upper bound on generated tokens")
    max_words: int | None = Field(default=None, ge=1, description="what the prompt asks for, as `max_words`")
    answer_prefix: str | None = Field(
        default=None, description="Jinja template of the answer's first words, which the model continues"
    )
    min_named_fraction: Fraction = Field(
        default=0.0,
        description="texts that must name their item, or one of the history, beyond what chance gives",
    )
    max_shared_openings: Fraction = Field(
        default=1.0, description="texts that may share their first five words with others"
    )
    json_output: JsonOutputSettings | None = Field(default=None, description="null: the answer is plain text")

    @field_validator("template")
    @classmethod
    def _not_blank(cls, template: str) -> str:
        if not template.strip():
            raise ValueError("must not be blank")
        return template


class KnowledgeSettings(Settings):
    """A prompt set."""

    name: str = Field(pattern=NAME)
    max_history: int = Field(ge=1, description="most recent ratings that a user prompt may show")
    factors: dict[str, str] = Field(
        default={}, description="item word -> what a text should go into; `other`: for all other words"
    )
    user: PromptSettings
    item: PromptSettings

    def prompt(self, kind: Kind) -> PromptSettings:
        """The prompt settings for entities of `kind`."""
        return self.user if kind == "user" else self.item

    def factors_of(self, item_word: str) -> str | None:
        """What a text on such an item should go into, whatever the word's case; None: the set names none."""
        factors = {word.lower(): text for word, text in self.factors.items()}
        return factors.get(item_word.lower(), factors.get("other"))


class RepetitionDetectionSettings(Settings):
    """Ends an output whose last `min_count` patterns of at most `max_pattern_size` tokens are the same."""

    max_pattern_size: int = Field(ge=1)
    min_pattern_size: int = Field(default=1, ge=1)
    min_count: int = Field(ge=2)

    @model_validator(mode="after")
    def _sizes_are_a_range(self) -> "RepetitionDetectionSettings":
        if self.min_pattern_size > self.max_pattern_size:
            raise ValueError(
                "model.sampling.repetition_detection.min_pattern_size must be at most "
                f"max_pattern_size={self.max_pattern_size}"
            )
        return self


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

    name: str = Field(pattern=NAME)
    path: str = Field(description="local folder, hub id, or 'package:<name>' for an embedded model")
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int = Field(ge=64)
    tensor_parallel_size: int = Field(
        default=1, ge=1, description="GPUs that share it; engine.tensor_parallel_size is this unless set"
    )
    trust_remote_code: bool = False
    chat_template_args: dict[str, bool | str | int] = {}
    prompt_form: PromptForm = Field(
        default=DEFAULT_PROMPT_FORM, description="which form of the prompts suits the model"
    )
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


class PlanSettings(Settings):
    """How work is cut."""

    shard_size: int = Field(ge=1, description="texts that a shard generates")


class ClusterSettings(Settings):
    """Where workers run."""

    address: str | None = Field(default=None, description="null: Ray on this machine only")
    num_workers: int | Literal["auto"] = "auto"
    cpus_per_worker: int | Literal["auto"] = "auto"
    max_shard_attempts: int = Field(default=3, ge=1)
    stall_timeout_sec: float = Field(default=600, gt=0, description="a worker without progress is replaced")
    start_timeout_sec: float = Field(default=3600, gt=0, description="to get its cores and load its model")
    no_worker_timeout_sec: float = Field(default=1800, gt=0, description="for a machine that can hold one")
    schedule: ScheduleSettings = Field(default=ScheduleSettings(), description="of rendered manifests")
    ray_jobs: RayJobsSettings | None = None
    kuberay: KubeRaySettings | None = None
    slurm: SlurmSettings | None = None
    crontab: CrontabSettings | None = None
    airflow: AirflowSettings | None = None

    @model_validator(mode="after")
    def _positive(self) -> "ClusterSettings":
        for field in ("num_workers", "cpus_per_worker"):
            value = getattr(self, field)
            if value != "auto" and value < 1:
                raise ValueError(f"cluster.{field} must be 'auto' or at least 1")
        return self


class PathsSettings(Settings):
    """Where results go."""

    data: str = Field(description="a folder that all workers share, or a store's URI, as s3://bucket/prefix")


class ReportSettings(Settings):
    """Where the morning report goes, besides the run's folder."""

    pushgateway: str | None = Field(default=None, min_length=1, description="host:port or URL; takes metrics")


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
    run_id: str | None = Field(default=None, pattern=NAME)
    offset: int = Field(default=0, ge=0, description="entities of the sample's ranking to pass over")
    history_cutoff: datetime | None = None
    cutoff_word: CutoffWord | None = Field(
        default=None, description="set by history_cutoff=today|yesterday: 00:00 UTC when the job began"
    )
    max_failed_fraction: Fraction = 0.01
    retry_failed: bool = Field(default=False, description="rows of a run that failed are generated again")
    publish: PublishSettings = PublishSettings()
    nightly: NightlySettings = NightlySettings()
    bench: BenchSettings = BenchSettings()
    encoder: EncoderSettings = EncoderSettings()
    export: ExportSettings = ExportSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    quality: QualitySettings = QualitySettings()
    report: ReportSettings = ReportSettings()
    dry_run: bool = Field(default=False, description="say what would be generated, and generate nothing")

    @field_validator("history_cutoff", mode="before")
    @classmethod
    def _iso_date_in_utc(cls, value: object) -> datetime | None:
        """Dates without a zone are UTC. Numbers are refused: pydantic would take 1998 for a Unix time."""
        if value is None:
            return None
        try:
            date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                "must be an ISO date, for example 1998-03-01 or 1998-03-01T12:00Z, or today, yesterday"
            ) from error

    @model_validator(mode="after")
    def _stops_after_a_step_that_there_is(self) -> "RunSettings":
        if self.nightly.stop_after == "quality" and not self.quality.enabled:
            raise ValueError("nightly.stop_after=quality: there is no such step unless quality.enabled=true")
        return self

    @property
    def acceptance_label(self) -> str:
        """The general rule in force: only LASER's verification can be relaxed."""
        return self.acceptance.label if self.drafter.name == "laser" else "strict"

    def acceptance_label_of(self, kind: Kind, group: str) -> str:
        """How a row names the rule that was in force for it."""
        return self.acceptance.rule_for(kind, group).label if self.drafter.name == "laser" else "strict"
