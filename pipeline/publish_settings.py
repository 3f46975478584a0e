"""Settings of the night: the bounds within which a snapshot is put in force, and where a night stops."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings_base import Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Step = Literal[
    "tables",
    "groups",
    "prompts",
    "plan",
    "generate",
    "quality",
    "snapshot",
    "validate",
    "datastore",
    "publish",
]


class PublishSettings(Settings):
    """What texts must satisfy to be published, what a snapshot must, and what `jobs.publish` does."""

    max_empty_fraction: Fraction = Field(
        default=0.01, description="of the texts of a run or a snapshot; this and the next two bound both"
    )
    max_looping_fraction: Fraction = Field(default=0.05, description="texts ended by repetition detection")
    max_control_token_fraction: Fraction = Field(
        default=0.01, description="texts in which control tokens of the model stand"
    )
    min_distinct_fraction: Fraction = Field(
        default=0.5, description="different texts, of the texts of a run for different prompts"
    )
    min_judged_rows: int = Field(
        default=200,
        ge=1,
        description="from so many texts on, the bounds hold for the new ones and for each kind alone too",
    )
    max_gone_fraction: Fraction = Field(
        default=0.05, description="of the users and of the items in force, those that may leave at once"
    )
    keep_versions: int = Field(default=7, ge=2, description="complete versions that pruning leaves")
    action: Literal["publish", "validate", "rollback", "list"] = "publish"
    version: str | None = Field(default=None, description="action=rollback: null is the version before")


class NightlySettings(Settings):
    """How far a night goes."""

    stop_after: Step | None = Field(default=None, description="the same command goes on from there")
