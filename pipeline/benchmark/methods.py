"""The decoding methods that are compared."""

from dataclasses import dataclass
from importlib.util import find_spec

from pipeline.settings import AcceptanceSettings, DrafterSettings, RunSettings

BASELINE = "none"
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
    """Those of `bench.methods`, `none` first: the others are ratios to it.

    `suffix` only where arctic-inference is installed.
    """
    known = _known_methods(settings)
    names = [BASELINE, *(name for name in settings.bench.methods if name != BASELINE)]
    return [known[name] for name in names if name != "suffix" or find_spec("arctic_inference") is not None]


def strict_laser(settings: RunSettings) -> Method:
    """LASER with greedy decoding's own texts."""
    return _known_methods(settings)["laser-strict"]


def _known_methods(settings: RunSettings) -> dict[str, Method]:
    max_drafts = settings.drafter.max_draft_tokens or 16
    laser = DrafterSettings(name="laser", max_draft_tokens=max_drafts)
    relaxed = AcceptanceSettings(name="relaxed", top_k=2, min_prob=0.1)
    if settings.acceptance.name == "relaxed":
        relaxed = settings.acceptance
    methods = [
        Method(BASELINE, DrafterSettings(name="none", max_draft_tokens=0)),
        Method("ngram", DrafterSettings(name="ngram", max_draft_tokens=5)),
        Method("suffix", DrafterSettings(name="suffix", max_draft_tokens=max_drafts)),
        Method("laser-strict", laser),
        Method("laser-relaxed", laser, relaxed),
        Method("laser-guarded", laser, relaxed.model_copy(update={"max_relaxed_run": 1})),
        Method("laser-deferred", laser, relaxed.model_copy(update={"deferred_tokens": 2})),
    ]
    return {method.name: method for method in methods}
