"""The gate decodes a run's prompts anew: that says something only if the run's own model does it."""

from collections.abc import Iterator
from typing import Any

from pipeline.errors import ConfigError, DataError
from pipeline.models import ModelSource
from pipeline.settings import KINDS, RunSettings
from pipeline.storage.files import read_json
from pipeline.storage.layout import RunLayout

SHOWN_CHARS = 15  # of hashes


def require_same_decoding(run: RunLayout, settings: RunSettings, source: ModelSource) -> None:
    """Raise `ConfigError` naming what differs unless `settings` and `source` decode as the run did.

    Compared with its `manifest.json`: model and revision, tokenizer, dtype, sampling, and how answers are
    constrained. Where the model lies and how many GPUs share it makes no difference.
    """
    manifest = read_json(run.manifest)
    if manifest is None:
        raise DataError(f"run_id={run.root.name}: it has no manifest.json that says how it was written")
    changes = [f"{name}: {before}, now {now}" for name, before, now in _differing(manifest, settings, source)]
    if changes:
        found = "; ".join(changes)
        raise ConfigError(
            f"run_id={run.root.name}: it was written otherwise than these settings would ({found}); check it "
            "with the settings that it was written with"
        )


def _differing(
    manifest: dict[str, Any], settings: RunSettings, source: ModelSource
) -> Iterator[tuple[str, Any, Any]]:
    """(name, value of the run, value now). What an older manifest does not record is not compared."""
    recorded, now = manifest.get("settings") or {}, settings.model_dump(mode="json")
    model, model_now = recorded.get("model") or {}, now["model"]
    revision = manifest.get("model_revision")
    if revision != source.revision:
        yield "model", _named(model, revision), _named(model_now, source.revision)
    tokenizer = manifest.get("tokenizer_hash")
    if tokenizer != source.tokenizer_hash:
        yield "tokenizer", str(tokenizer)[:SHOWN_CHARS], source.tokenizer_hash[:SHOWN_CHARS]
    yield from _changed("model.", model, model_now, ("dtype",))
    sampling = model.get("sampling") or {}
    yield from _changed("model.sampling.", sampling, model_now["sampling"], tuple(sampling))
    for kind in KINDS:
        prompt = (recorded.get("knowledge") or {}).get(kind) or {}
        yield from _changed(f"knowledge.{kind}.", prompt, now["knowledge"][kind], ("json_output",))


def _named(model: dict[str, Any], revision: Any) -> str:
    return f"{model.get('name')} ({str(revision)[:SHOWN_CHARS]})"


def _changed(
    prefix: str, before: dict[str, Any], now: dict[str, Any], names: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    for name in names:
        if name in before and before[name] != now.get(name):
            yield f"{prefix}{name}", before[name], now.get(name)
