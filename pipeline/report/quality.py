"""What was measured of new knowledge: `quality.json` (any measures), `validation.json` (the snapshot)."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import CorruptPartError
from pipeline.quality_settings import has_measured_enough
from pipeline.report.figures import QualityCheck, SnapshotShare

SHOWN_DIGITS = 4
COMPARED = "texts_compared"  # how many of the chosen texts the measures rest on


def read_quality(path: Path) -> list[QualityCheck]:
    """The checks of the quality gate; none if it did not run.

    Takes a list of objects with `name`, `value`, `budget`, `ok`; the same below a key `metrics` or `checks`;
    or an object of name -> such an object or plain value. The first check is `COMPARED` if `num_chosen` and
    `sample` stand beside them. Raises `CorruptPartError` if the file is no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise CorruptPartError(f"{path}: unreadable ({error})") from error
    compared = _compared(content)
    for key in ("metrics", "checks"):
        if isinstance(content, dict) and isinstance(content.get(key), list | dict):
            content = content[key]
    if isinstance(content, dict):
        return [_check({"name": name} | _as_object(value)) for name, value in content.items()]
    checks = content if isinstance(content, list) else []
    return [*compared, *(_check(_as_object(value)) for value in checks)]


def _compared(content: Any) -> list[QualityCheck]:
    """How many of the texts that the gate had chosen could be decoded in every way."""
    values = content if isinstance(content, dict) else {}
    chosen, sample = values.get("num_chosen"), values.get("sample")
    if not isinstance(chosen, int) or not isinstance(sample, int):
        return []
    is_ok = has_measured_enough(sample, chosen) if chosen else None
    return [QualityCheck(COMPARED, f"{sample} of {chosen}", "at least half", is_ok)]


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}


def _check(values: dict[str, Any]) -> QualityCheck:
    is_ok = values.get("ok")
    return QualityCheck(
        name=str(values.get("name", "-")),
        value=_shown(values.get("value")),
        budget=_shown(values.get("budget")),
        is_ok=is_ok if isinstance(is_ok, bool) else None,
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{SHOWN_DIGITS}g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_validation(path: Path) -> list[SnapshotShare]:
    """What validation counted in the snapshot and in the run's own texts; empty if it did not run."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [("snapshot", content["snapshot"]), ("texts of this run", content["new_texts"])]
        return [
            SnapshotShare(
                name, x["num_rows"], x["num_empty"], x["num_looping"], x.get("num_with_control_tokens", 0)
            )
            for name, x in parts
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return []  # not there, or of another release: validation itself has judged it
