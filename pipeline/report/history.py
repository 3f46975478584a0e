"""The nights before: each report leaves its figures in `report.json`, the next ones compare with them."""

import json
import logging
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.generate.aboutness import Aboutness
from pipeline.report.figures import (
    GENERATE_STAGE,
    READ_STAGE,
    Compared,
    Decoding,
    RowFigures,
    RunFacts,
    ShardFigures,
    Speed,
    ratio,
)
from pipeline.report.night import Night
from pipeline.settings import KINDS, Kind

logger = logging.getLogger(__name__)
NUM_NIGHTS = 7
FORMAT_VERSION = 1
MIN_SHARE = 0.01
MIN_LONGER_SEC = 600.0
Record = dict[str, Any]
Form = Literal["count", "decimal", "percent", "duration"]


@dataclass(frozen=True)
class Metric:
    """A figure that nights are compared by."""

    name: str  # key of `metrics` in report.json; carries its unit
    label: str
    form: Form
    bad: Literal["higher", "lower"] | None = None  # what an alert is worth; None: it only informs
    min_change: float = 0.0  # see `Compared`
    is_of_drafts: bool = False  # flattered by drafts from earlier answers to the same prompts


METRICS = (
    Metric("num_new", "new entities", "count"),
    Metric("num_changed", "changed entities", "count"),
    Metric("num_carried", "carried over", "count"),
    Metric("num_gone", "gone entities", "count"),
    Metric("num_rows", "texts written", "count"),
    Metric("num_failed", "failed rows", "count"),
    Metric("failed_share", "failed rows, of those planned", "percent", "higher", MIN_SHARE),
    Metric("looping_share", "looping texts", "percent", "higher", MIN_SHARE),
    Metric("named_user_share", "texts that name an item of their user", "percent", "lower", MIN_SHARE),
    Metric("named_item_share", "texts that name their item", "percent", "lower", MIN_SHARE),
    Metric("num_output_tokens", "tokens", "count"),
    Metric("tokens_per_sec", "tokens/s", "count", "lower", is_of_drafts=True),
    Metric("tokens_per_step", "tokens per decoding step", "decimal", "lower", is_of_drafts=True),
    Metric("acceptance", "drafts accepted", "percent", "lower", MIN_SHARE, is_of_drafts=True),
    Metric("relaxed_share", "relaxed tokens", "percent", is_of_drafts=True),
    Metric("price", "price of a draft token", "decimal", is_of_drafts=True),
    Metric("drafter_ms", "drafter, ms per step", "decimal"),
    Metric("median_shard_sec", "median shard", "duration", is_of_drafts=True),
    Metric("decode_sec", "decoding", "duration", is_of_drafts=True),
    Metric("elapsed_sec", "whole run", "duration", "higher", MIN_LONGER_SEC, is_of_drafts=True),
)


def metrics_of(
    rows: RowFigures,
    speed: Speed,
    shards: ShardFigures,
    num_failed: dict[str, int],
    night: Night | None,
    seconds: float | None,
    aboutness: Mapping[Kind, Aboutness],
) -> dict[str, float | None]:
    """The figures of `METRICS`; None where the run has none. `num_failed`: stage -> rows."""
    total: Decoding = rows.of_kind()
    num_unwritten = num_failed.get(GENERATE_STAGE, 0)
    changes: dict[str, float | None] = {
        f"num_{name}": night.total(name) if night else None for name in ("new", "changed", "carried", "gone")
    }
    named: dict[str, float | None] = {
        f"named_{kind}_share": aboutness[kind].named if kind in aboutness else None for kind in KINDS
    }
    others: dict[str, float | None] = {
        "num_rows": total.num_rows,
        "num_failed": sum(number for stage, number in num_failed.items() if stage != READ_STAGE),
        "failed_share": ratio(num_unwritten, total.num_rows + num_unwritten),
        "looping_share": rows.looping_share,
        "num_output_tokens": total.num_output_tokens,
        "tokens_per_sec": speed.tokens_per_sec,
        "tokens_per_step": total.tokens_per_step,
        "acceptance": total.acceptance,
        "relaxed_share": total.relaxed_share,
        "price": speed.price,
        "drafter_ms": speed.drafter_ms,
        "median_shard_sec": shards.median_sec,
        "decode_sec": speed.decode_sec or None,
        "elapsed_sec": seconds,
    }
    return changes | named | others


def make_record(
    facts: RunFacts,
    state: str,
    night: Night | None,
    started_at: datetime | None,
    metrics: dict[str, float | None],
) -> Record:
    """What `report.json` holds."""
    return {
        "format_version": FORMAT_VERSION,
        "run_id": facts.run_id,
        "is_night": night is not None,
        "model": facts.model,
        "knowledge": facts.knowledge,
        "drafter": facts.drafter,
        "acceptance": facts.acceptance,
        "state": state,
        "is_new": facts.is_new,
        "started_at": None if started_at is None else started_at.astimezone(UTC).isoformat(),
        "metrics": metrics,
    }


def earlier_records(runs: Path, record: Record) -> list[Record]:
    """The last `NUM_NIGHTS` runs before `record` that can be compared with it, oldest first.

    Nights are compared with nights, other runs with other runs; of one model, prompt set, drafter and
    acceptance rule, as far as they say (a night without changes has none).
    """
    same = ("model", "knowledge", "drafter", "acceptance")
    earlier = [
        other
        for other in _records(runs)
        if other["run_id"] != record["run_id"]
        and other.get("is_night") == record["is_night"]
        and all(None in (other.get(name), record[name]) or other[name] == record[name] for name in same)
        and _began(other) < _began(record)
    ]
    return sorted(earlier, key=_began)[-NUM_NIGHTS:]


def compare(metrics: dict[str, float | None], earlier: list[Record], is_new: bool = True) -> list[Compared]:
    """Each figure beside the median and range of earlier runs that ended well and have it.

    What drafts decide is compared among runs of new prompts only (`is_new`: this is one; `RunFacts.is_new`).
    """
    good = [record for record in earlier if record.get("state") == "done"]
    new = [record for record in good if is_new and record.get("is_new", True)]
    return [
        _compared(
            metric,
            metrics.get(metric.name),
            [record["metrics"].get(metric.name) for record in (new if metric.is_of_drafts else good)],
        )
        for metric in METRICS
    ]


def change(compared: Compared) -> float | None:
    """Relative change against the median; None if there is nothing to compare with."""
    if compared.value is None or compared.median is None:
        return None
    return ratio(compared.value - compared.median, compared.median)


def _compared(metric: Metric, value: float | None, before: list[Any]) -> Compared:
    known = [float(x) for x in before if isinstance(x, int | float)]
    if not known:
        return Compared(metric.name, metric.label, value, None, None, None, 0)
    return Compared(
        name=metric.name,
        label=metric.label,
        value=value,
        median=statistics.median(known),
        low=min(known),
        high=max(known),
        num_nights=len(known),
        bad=metric.bad,
        min_change=metric.min_change,
    )


def _began(record: Record) -> str:
    """ISO times in UTC, which sort as text; a run that never began stands last."""
    return str(record.get("started_at") or "9999")


def _records(runs: Path) -> Iterator[Record]:
    for path in sorted(runs.glob("*/report.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.warning("%s: left out of the comparison: %s", path, error)
            continue
        is_known = isinstance(record, dict) and record.get("format_version") == FORMAT_VERSION
        if is_known and isinstance(record.get("metrics"), dict) and isinstance(record.get("run_id"), str):
            yield record
