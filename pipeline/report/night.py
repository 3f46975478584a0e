"""What `night.json` says: the night as the job that ran it tells it. Every key may be missing."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import CorruptPartError

GOOD_STATES = (
    "done",
    "ok",
    "success",
    "succeeded",
    "complete",
    "completed",
    "published",
    "unchanged",
    "skipped",
)
USUAL_COUNTS = ("planned", "new", "changed", "carried", "gone", "failed", "kept_old")
GOING_STATES = ("running", "started")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class NightStep(_Part):
    """One step of the night."""

    name: str
    seconds: float | None = None
    status: str = "done"
    error: str | None = Field(default=None, validation_alias=AliasChoices("error", "reason"))

    @property
    def is_good(self) -> bool:
        """Whether the step did what it should."""
        return self.status.lower() in GOOD_STATES


class ChangeDecoding(_Part):
    """Sums over the texts of entities that were new, or whose prompt had changed."""

    num_rows: int = 0
    num_output_tokens: int = 0
    num_decode_steps: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


class Night(_Part):
    """Content of `night.json`."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    status: str = "done"
    error: str | None = Field(default=None, validation_alias=AliasChoices("error", "reason"))
    previous_version: str | None = None
    version: str | None = None
    datastore_version: str | None = None
    steps: list[NightStep] = []
    counts: dict[str, dict[str, int]] = {}  # kind -> what became of its entities -> how many
    by_change: dict[str, ChangeDecoding] = {}
    decode_sec: float | None = None
    saved_decode_sec: float | None = None

    @field_validator("started_at", "ended_at")
    @classmethod
    def _in_utc(cls, moment: datetime | None) -> datetime | None:
        """Times without a zone are UTC."""
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=UTC)

    @property
    def is_good(self) -> bool:
        """Whether the night ended as it should."""
        return self.status.lower() in GOOD_STATES

    @property
    def is_going(self) -> bool:
        """Whether the night has not ended."""
        return self.status.lower() in GOING_STATES

    @property
    def is_stopped(self) -> bool:
        """Whether the night ended early because it was told to."""
        return self.status.lower() == "stopped"

    @property
    def failed_step(self) -> NightStep | None:
        """The step at which the night failed: the last such one, if earlier sessions failed at others."""
        return next((step for step in reversed(self.steps) if not step.is_good), None)

    def total(self, name: str) -> int:
        """One of the counts, over all kinds."""
        return sum(counts.get(name, 0) for counts in self.counts.values())

    @property
    def count_names(self) -> list[str]:
        """The usual counts, and of the others those that are not zero."""
        others = sorted({name for counts in self.counts.values() for name in counts} - set(USUAL_COUNTS))
        return [*USUAL_COUNTS, *(name for name in others if self.total(name))]


def read_night(path: Path) -> Night | None:
    """The night of a run, None for a plain run; raises `CorruptPartError` naming file and key."""
    try:
        return Night.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise CorruptPartError(f"{path}: {where or 'content'}: {first['msg']}") from error
