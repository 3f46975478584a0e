"""Failed rows by reason, with an example each; reasons that differ in digits only are one."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.report.figures import GENERATE_STAGE, FailureReason
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import open_parquet
from pipeline.storage.parts import PartManifest

NUM_REASONS = 12
MAX_DISTINCT = 5_000  # reasons kept apart while counting
MAX_REASON_CHARS = 200
BATCH_ROWS = 16_384
OTHER = "other reasons"
DIGITS = re.compile(r"\d+")
COLUMNS = ["stage", "file", "line", "entity_id", "kind", "reason"]


def read_failures(
    layout: RunLayout, manifests: list[PartManifest]
) -> tuple[dict[str, int], dict[str, int], list[FailureReason]]:
    """(failed rows of each stage, of each kind in generation, the most frequent reasons).

    Out of failed.parquet, which a generation writes at its end; before that, out of `manifests`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    of_kind: Counter[str] = Counter()
    for row in _rows(layout, manifests):
        key = row["stage"], DIGITS.sub("#", _one_line(row["reason"]))
        if key not in counts and len(counts) >= MAX_DISTINCT:
            key = row["stage"], OTHER
        counts[key] += 1
        if row["stage"] == GENERATE_STAGE:
            of_kind[row["kind"]] += 1
        examples.setdefault(key, _example(row))
    by_stage: Counter[str] = Counter()
    for (stage, _), number in counts.items():
        by_stage[stage] += number
    reasons = [
        FailureReason(stage, reason, number, examples[stage, reason])
        for (stage, reason), number in counts.most_common(NUM_REASONS)
    ]
    return dict(sorted(by_stage.items())), dict(of_kind), reasons


def _rows(layout: RunLayout, manifests: Iterable[PartManifest]) -> Iterator[dict[str, Any]]:
    try:
        with open_parquet(layout.failed) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=COLUMNS):
                yield from batch.to_pylist()
    except (FileNotFoundError, pa.ArrowException):
        for manifest in manifests:
            yield from manifest.failed


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON_CHARS else line[: MAX_REASON_CHARS - 1] + "…"


def _example(row: dict[str, Any]) -> str:
    """Where to look: the entity, or file and line, and the reason in full."""
    where = f"{row.get('kind') or 'entity'} {row['entity_id']}" if row.get("entity_id") else ""
    if row.get("file"):
        line = f", line {row['line']}" if row.get("line") is not None else ""
        where = f"{row['file']}{line}"
    reason = _one_line(row["reason"])
    return f"{where}: {reason}" if where else reason
