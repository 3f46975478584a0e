"""Settings of the quality gate: how much it looks at, and how far relaxed texts may be from strict ones."""

from typing import Annotated

from pydantic import Field

from pipeline.settings_base import Settings

MIN_MEASURED = 0.5  # of the sample; a gate that sees less of it has not looked
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class QualitySettings(Settings):
    """The quality gate of a night. A budget of null: measured, but no reason to fail."""

    enabled: bool = Field(default=False, description="whether a night ends with the gate before it publishes")
    num_entities: int = Field(default=24, ge=2, description="relaxed texts that are decoded strictly as well")
    temperature: float = Field(default=0.7, gt=0.0, description="of the two sampled texts beside them")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_drift: float | None = Field(
        default=0.3, ge=0.0, le=2.0, description="mean cosine distance of relaxed to strict texts"
    )
    max_drift_to_sampled: float | None = Field(
        default=1.0, ge=0.0, description="the drift as a multiple of that between two sampled texts"
    )
    max_relaxed_share: Fraction | None = Field(default=0.5, description="of the tokens, those not the argmax")
    max_length_change: float | None = Field(
        default=0.25, ge=0.0, description="of relaxed texts against strict ones, either way"
    )
    max_looping_increase: Fraction | None = Field(
        default=0.05, description="share of repeated 8-grams, relaxed minus strict"
    )


def has_measured_enough(num_measured: int, num_chosen: int) -> bool:
    """Whether so many texts of the sample say something: one rule for the gate and the report."""
    return num_measured >= MIN_MEASURED * num_chosen
