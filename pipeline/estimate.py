"""How long a generation would take: from the earlier run that is most like it, or by a guess."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.environment import machine_backend
from pipeline.settings import KINDS, Kind, RunSettings
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.run_settings import flat

# Output tokens per second of one worker, for the first run of a model: the embedded model on two CPU
# cores, and a 7B model on one data-centre GPU. A finished run's own rate is used as soon as there is one.
FIRST_RUN_TOKENS_PER_SEC = {"cpu": 150.0, "gpu": 2500.0}
# Settings that decide how fast a run is, and how long its texts are.
_DECIDING = ("model.", "knowledge.", "drafter.", "acceptance.", "engine.", "cluster.")
_OF_CLUSTER = ("cluster.num_workers", "cluster.cpus_per_worker", "cluster.address")
_NAMES = ("model.name", "knowledge.name")


@dataclass(frozen=True)
class TimeEstimate:
    """How long generation would take, and what the estimate rests on."""

    num_output_tokens: int  # of the entities that are asked for
    num_output_tokens_of_all: int  # of all entities of the domain
    tokens_per_sec: float
    basis: str

    @property
    def seconds(self) -> float:
        """Generation time, without start-up."""
        return self.num_output_tokens / self.tokens_per_sec

    @property
    def seconds_of_all(self) -> float:
        """Generation time with limit=all, without start-up."""
        return self.num_output_tokens_of_all / self.tokens_per_sec


def estimate_time(
    settings: RunSettings, num_texts: Mapping[Kind, float], num_texts_of_all: Mapping[Kind, float]
) -> TimeEstimate:
    """The time to generate so many texts of each kind, of the sample and of the whole domain."""
    rate, tokens_per_text, basis = _expected(settings)

    def num_tokens(counts: Mapping[Kind, float]) -> int:
        return round(sum(counts[kind] * tokens_per_text[kind] for kind in KINDS))

    return TimeEstimate(num_tokens(num_texts), num_tokens(num_texts_of_all), rate, basis)


def _expected(settings: RunSettings) -> tuple[float, dict[Kind, float], str]:
    """(tokens per second, mean tokens of a text by kind, what both rest on)."""
    earlier = list(_earlier_runs(settings))
    if earlier:
        most_alike = min(earlier, key=lambda run: len(run.differing))  # of several the newest, which is first
        return most_alike.tokens_per_sec, most_alike.tokens_per_text, most_alike.basis
    longest = {kind: float(settings.knowledge.prompt(kind).max_tokens) for kind in KINDS}
    basis = "a guess for one worker: no run of this model yet, every text as long as allowed"
    return FIRST_RUN_TOKENS_PER_SEC[machine_backend()], longest, basis


@dataclass(frozen=True)
class _EarlierRun:
    """A finished run of the same model. `differing`: the settings' sections in which it was another."""

    run_id: str
    tokens_per_sec: float
    tokens_per_text: dict[Kind, float]
    differing: list[str]
    notes: list[str]

    @property
    def basis(self) -> str:
        others = [f"though with other settings of {', '.join(self.differing)}"] if self.differing else []
        return ", ".join([f"as in run {self.run_id}", *others, *self.notes])


def _earlier_runs(settings: RunSettings) -> Iterator[_EarlierRun]:
    """The finished runs of the model on this dataset, the newest first."""
    runs = DatasetLayout.of(settings.paths.data, settings.dataset.name).root / "runs"
    for path in sorted(runs.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        if (found := _earlier_run(path, settings)) is not None:
            yield found


def _earlier_run(manifest: Path, settings: RunSettings) -> _EarlierRun | None:
    """What the manifest says; None unless it is that of a finished run of the same model."""
    try:
        recorded = json.loads(manifest.read_text(encoding="utf-8"))
        summary, before = recorded["summary"], dict(flat(recorded["settings"]))
        if before["model.path"] != settings.model.path or not summary["tokens_per_sec"]:
            return None
        now = dict(flat(settings.model_dump(mode="json")))
        differing = {name for name in before.keys() & now.keys() if before[name] != now[name]}
        tokens, notes = {}, []
        for kind in KINDS:
            tokens[kind], note = _tokens_per_text(
                kind, settings, summary["kinds"].get(kind), before, differing
            )
            notes += [note] if note else []
        sections = {name.split(".")[0] for name in differing if _decides(name)}
        return _EarlierRun(
            manifest.parent.name, float(summary["tokens_per_sec"]), tokens, sorted(sections), notes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None


def _decides(name: str) -> bool:
    """Whether the setting decides the speed. What `max_tokens` does is reckoned with, not listed."""
    if name.startswith("cluster.") and name not in _OF_CLUSTER:
        return False
    return name.startswith(_DECIDING) and name not in _NAMES and not name.endswith(".max_tokens")


def _tokens_per_text(
    kind: Kind,
    settings: RunSettings,
    summary: dict[str, Any] | None,
    before: dict[str, Any],
    differing: set[str],
) -> tuple[float, str]:
    """(mean tokens of a text of `kind`, what is to be said of it) for the `max_tokens` of now.

    Texts that ended by themselves stay as they are unless they are too long now. Those that were cut become
    as long as allowed: that is the most they can be. Other prompts give texts of another length.
    """
    allowed = float(settings.knowledge.prompt(kind).max_tokens)
    of_kind = (f"knowledge.{kind}.", "knowledge.factors", "model.sampling.")
    bound = f"knowledge.{kind}.max_tokens"
    if summary is None or any(name.startswith(of_kind) and name != bound for name in differing):
        return allowed, f"every {kind}'s text as long as allowed"
    num_tokens, num_rows = summary["num_output_tokens"], summary["num_rows"] - summary.get("num_shared", 0)
    if bound not in differing:
        return num_tokens / num_rows, ""
    num_cut = num_rows * summary.get("finish_reasons", {}).get("length", 0) / summary["num_rows"]
    num_ended = num_rows - num_cut
    ended_tokens = max(0.0, num_tokens - num_cut * before[bound])
    tokens = num_cut * allowed + (min(ended_tokens, num_ended * allowed) if num_ended else 0.0)
    return tokens / num_rows, f"{kind}s with max_tokens={allowed:.0f}, not {before[bound]}"
