"""The settings that a run's `manifest.json` records, compared with those of now."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.settings import RunSettings
from pipeline.storage.files import sha256_of_json

# These never change what is written.
WITHOUT_EFFECT = (
    "cluster.",
    "paths.",
    "publish.",
    "encoder.",
    "export.",
    "report.",
    "quality.",
    "evaluation.",
    "bench.",
    "nightly.",
    "dry_run",
    "cutoff_word",
    "run_id",
    "retry_failed",
    "max_failed_fraction",
)
MAX_NAMED = 5


def differing_settings(manifest: Path, fingerprint: str, settings: RunSettings | None) -> str:
    """Which settings differ from those of the run, for example `acceptance.top_k: 2, now 3`.

    Empty if nothing is known: no `settings`, or no manifest with keys `settings`
    (`RunSettings.model_dump(mode="json")`) and `fingerprint` equal to `fingerprint`.
    """
    recorded = _recorded(manifest, fingerprint)
    if settings is None or recorded is None:
        return ""
    before, now = dict(flat(recorded)), dict(flat(settings.model_dump(mode="json")))
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    changes = [
        f"{name}: {before.get(name)}, now {now.get(name)}"
        for name in names
        if not name.startswith(WITHOUT_EFFECT)
    ]
    more = [f"and {len(changes) - MAX_NAMED} more"] if len(changes) > MAX_NAMED else []
    return "; ".join(changes[:MAX_NAMED] + more).replace("\n", " ")


def settings_digest(settings: RunSettings) -> str:
    """A hash of all settings that can change what is written, apart from the cutoff."""
    values = flat(settings.model_dump(mode="json"))
    ignored = (*WITHOUT_EFFECT, "history_cutoff")
    return sha256_of_json({name: value for name, value in values if not name.startswith(ignored)})


def _recorded(manifest: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(content, dict) and content.get("fingerprint") == fingerprint
    settings = content.get("settings") if known else None
    return settings if isinstance(settings, dict) else None


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings one by one, for example (`acceptance.top_k`, 2)."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
