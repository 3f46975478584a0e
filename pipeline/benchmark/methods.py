"""The decoding methods that are compared."""

from dataclasses import dataclass
from importlib.util import find_spec

from pipeline.settings import AcceptanceSettings, DrafterSettings, RunSettings

STRICT = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)


@dataclass(frozen=True)
class Method:
    """A drafter with an acceptance rule."""

    name: str
    drafter: DrafterSettings
    acceptance: AcceptanceSettings = STRICT

    def applied_to(self, settings: RunSettings) -> RunSettings:
        """`settings` with this method in place of the configured drafter and rule."""
        return settings.model_copy(update={"drafter": self.drafter, "acceptance": self.acceptance})


def compared_methods(settings: RunSettings) -> list[Method]:
    """`none` first: the others are ratios to it. `suffix` only where arctic-inference is installed."""
    max_drafts = settings.drafter.max_draft_tokens or 16
    laser = DrafterSettings(name="laser", max_draft_tokens=max_drafts)
    relaxed = AcceptanceSettings(name="relaxed", top_k=2, min_prob=0.1)
    if settings.acceptance.name == "relaxed":
        relaxed = settings.acceptance
    methods = [
        Method("none", DrafterSettings(name="none", max_draft_tokens=0)),
        Method("ngram", DrafterSettings(name="ngram", max_draft_tokens=5)),
    ]
    if find_spec("arctic_inference") is not None:
        methods.append(Method("suffix", DrafterSettings(name="suffix", max_draft_tokens=max_drafts)))
    return [*methods, Method("laser-strict", laser), Method("laser-relaxed", laser, relaxed)]
