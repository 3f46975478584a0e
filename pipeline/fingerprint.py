"""What a text depends on, as a short hash.

Two fingerprints. `text_fingerprint` covers what a knowledge text depends on apart from its prompt:
model, revision, prompt set, acceptance, sampling. An entity whose prompt hash and text fingerprint are
those of the snapshot in force need not be written again. `run_fingerprint` adds what steers one run
(drafts, tokenizer, cutoff), so that parts of one run id never mix.

Left out of both, because none changes what is written: workers, cluster, paths, engine batch sizes,
tensor parallelism (numerics only), log level, `limit` and `offset`, `run_id`, `plan.shard_size`; where a
model's folder lies (its revision is a hash of what is in it), and `model.max_model_len`, which decides what
prompts show and is seen in their hashes.
"""

from datetime import UTC, datetime
from typing import Any

from pipeline.acceptance_settings import AcceptanceRuleSettings
from pipeline.models.folder import OF_CONTENT
from pipeline.settings import (
    KINDS,
    AcceptanceSettings,
    KnowledgeSettings,
    ModelSettings,
    RunSettings,
    SamplingSettings,
)
from pipeline.storage.files import sha256_of_json

FINGERPRINT_CHARS = 16
_NOT_OF_MODEL = {
    "sampling", "revision", "trust_remote_code", "tensor_parallel_size", "max_model_len", "prompt_form",
}  # fmt: skip
# Seen in the prompt, or a bound on the texts; `json_output` is counted where answers are structured.
_NOT_COUNTED = {"max_words", "json_output", "answer_prefix", "min_named_fraction", "max_shared_openings"}


def text_fingerprint(
    model: ModelSettings,
    model_revision: str,
    knowledge: KnowledgeSettings,
    acceptance: AcceptanceSettings,
) -> str:
    """16 hex digits over model, revision, prompt set, acceptance and sampling (`model.sampling`)."""
    return _shortened(
        {
            "model": _model(model, model_revision),
            "model_revision": model_revision,
            "knowledge": _knowledge(knowledge),
            "acceptance": _acceptance(acceptance),
            "sampling": model.sampling.model_dump(mode="json"),
        }
    )


def row_fingerprint(settings: RunSettings, model_revision: str) -> str:
    """The `text_fingerprint` that rows of this run carry: only LASER's verification can be relaxed."""
    acceptance = settings.acceptance
    if settings.drafter.name != "laser":
        acceptance = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)
    return text_fingerprint(settings.model, model_revision, settings.knowledge, acceptance)


def run_fingerprint(
    settings: RunSettings, model_revision: str, tokenizer_hash: str, datastore_version: str | None
) -> str:
    """16 hex digits over what the texts of this run depend on. The manifests of its parts carry it."""
    text = text_fingerprint(settings.model, model_revision, settings.knowledge, settings.acceptance)
    return _shortened(
        {
            "text": text,
            "tokenizer_hash": tokenizer_hash,
            "item_word": settings.dataset.item_word,
            "rating_range": [settings.dataset.min_rating, settings.dataset.max_rating],
            "history_cutoff": _as_utc(settings.history_cutoff),
            "drafts": _drafts(settings, datastore_version),
        }
    )


def drafts_change_text(acceptance: AcceptanceSettings, sampling: SamplingSettings) -> bool:
    """Whether another drafter or another pool can give another text.

    Strict verification of a greedy request writes the argmax whatever was proposed. Relaxed
    verification takes an acceptable draft token that is not the argmax, and a sampled request draws
    its random numbers along the drafts; there the drafts matter.
    """
    return acceptance.is_relaxed or sampling.temperature > 0


def _drafts(settings: RunSettings, datastore_version: str | None) -> dict[str, Any] | None:
    """What steers the text through drafts, None if nothing does."""
    if settings.drafter.name == "none" or not drafts_change_text(
        settings.acceptance, settings.model.sampling
    ):
        return None
    pools = datastore_version if settings.drafter.name == "laser" else None
    return {"drafter": settings.drafter.model_dump(mode="json"), "datastore_version": pools}


def _model(model: ModelSettings, found: str) -> dict[str, Any]:
    """The model without its sampling. Its `revision` is what was asked for; `found` is what that was."""
    of_content = {"path"} if found.startswith(OF_CONTENT) else set()
    return model.model_dump(mode="json", exclude=_NOT_OF_MODEL | of_content)


def _knowledge(knowledge: KnowledgeSettings) -> dict[str, Any]:
    """The prompt set. How answers are parsed decides what a row holds, and may constrain what is written."""
    seen: dict[str, Any] = {"factors": True, "user": _NOT_COUNTED, "item": _NOT_COUNTED}
    values = knowledge.model_dump(mode="json", exclude=seen)
    for kind in KINDS:
        if (json_output := knowledge.prompt(kind).json_output) is not None:
            values[kind]["json_output"] = json_output.model_dump(mode="json")
    return values


def _acceptance(acceptance: AcceptanceSettings) -> dict[str, Any]:
    """The rules, not their names."""
    overrides = [
        {"kind": one.kind, "group": one.group, "top_k": one.top_k, "min_prob": one.min_prob}
        for one in acceptance.overrides
    ]
    options = {name: getattr(acceptance, name) for name in ("max_relaxed_run", "deferred_tokens")}
    in_use = {name: value for name, value in options.items() if value and acceptance.is_relaxed}
    return _rule(acceptance) | in_use | ({"overrides": overrides} if overrides else {})


def _rule(rule: AcceptanceRuleSettings) -> dict[str, Any]:
    """top_k=1 is strict, and then `min_prob` has no say."""
    return {"top_k": rule.top_k, "min_prob": rule.min_prob if rule.top_k > 1 else None}


def _as_utc(moment: datetime | None) -> str | None:
    """ISO text in UTC; a time without a zone is taken as UTC, as prompts take it."""
    if moment is None:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()


def _shortened(value: dict[str, Any]) -> str:
    return sha256_of_json(value)[:FINGERPRINT_CHARS]
