"""Settings of the acceptance rule: one for all texts, and others for a kind or a group."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings_base import Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
TopK = Annotated[int, Field(ge=1, le=64)]


class AcceptanceRuleSettings(Settings):
    """Which draft tokens the target model's verification takes (LASER, section 3.3)."""

    top_k: TopK
    min_prob: Fraction
    max_relaxed_run: int = Field(default=0, ge=0, description="relaxed tokens in a row; 0: any number")
    deferred_tokens: int = Field(
        default=0, ge=0, description="a relaxed token stands if so many draft tokens behind it are the argmax"
    )

    @property
    def label(self) -> str:
        """How rows name the rule: `strict`, `relaxed(k=2,p=0.1)`, with options `relaxed(k=2,p=0.1,run=1)`."""
        if self.top_k == 1:
            return "strict"
        run = f",run={self.max_relaxed_run}" if self.max_relaxed_run else ""
        deferred = f",deferred={self.deferred_tokens}" if self.deferred_tokens else ""
        return f"relaxed(k={self.top_k},p={self.min_prob:g}{run}{deferred})"


class AcceptanceOverrideSettings(Settings):
    """Another rule for the entities of a kind, or of one of its groups; what is not set stays as it is."""

    kind: Literal["user", "item"]
    group: str | None = Field(default=None, min_length=1, description="null: all groups of the kind")
    top_k: TopK | None = None
    min_prob: Fraction | None = None

    @model_validator(mode="after")
    def _sets_something(self) -> "AcceptanceOverrideSettings":
        if self.top_k is None and self.min_prob is None:
            raise ValueError("acceptance.overrides: an override sets top_k, min_prob or both")
        return self

    def fits(self, kind: str, group: str) -> bool:
        """Whether it speaks of the entities of this kind and group."""
        return self.kind == kind and self.group in (None, group)


class AcceptanceSettings(AcceptanceRuleSettings):
    """The rule of all texts, and its exceptions. Of overrides that fit the same entity the later decides."""

    name: Literal["relaxed", "strict"]
    overrides: list[AcceptanceOverrideSettings] = []

    @model_validator(mode="after")
    def _strict_is_argmax(self) -> "AcceptanceSettings":
        if self.name == "strict" and self.top_k != 1:
            raise ValueError("acceptance.top_k must be 1 with acceptance=strict; use acceptance=relaxed")
        for number, override in enumerate(self.overrides):
            if self.name == "strict" and (override.top_k or 1) > 1:
                raise ValueError(
                    f"acceptance.overrides[{number}].top_k must be 1 with acceptance=strict; "
                    "use acceptance=relaxed"
                )
        return self

    def rule_for(self, kind: str, group: str) -> AcceptanceRuleSettings:
        """The rule in force for the entities of a kind and group."""
        top_k, min_prob = self.top_k, self.min_prob
        for override in self.overrides:
            if override.fits(kind, group):
                top_k = top_k if override.top_k is None else override.top_k
                min_prob = min_prob if override.min_prob is None else override.min_prob
        return AcceptanceRuleSettings(
            top_k=top_k,
            min_prob=min_prob,
            max_relaxed_run=self.max_relaxed_run,
            deferred_tokens=self.deferred_tokens,
        )

    @property
    def is_relaxed(self) -> bool:
        """Whether any entity's rule may take a token that is not the argmax."""
        return self.top_k > 1 or any((override.top_k or 1) > 1 for override in self.overrides)
