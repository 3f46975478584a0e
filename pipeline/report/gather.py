"""From the files of a run to its figures. A run that failed has figures too: what is missing is unknown."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from pipeline.domains.tables import item_titles
from pipeline.errors import DataError
from pipeline.failure_bound import KindCounts
from pipeline.generate.aboutness import aboutness_in
from pipeline.generate.contract import SourceCounts
from pipeline.generate.time_series import read_series
from pipeline.output_bounds import OutputCounts
from pipeline.report.failures import read_failures
from pipeline.report.figures import GENERATE_STAGE, RowFigures, RunFacts, RunFigures, Speed
from pipeline.report.history import compare, earlier_records, make_record, metrics_of
from pipeline.report.night import Night, read_night
from pipeline.report.quality import read_quality, read_validation
from pipeline.report.rows import RowGatherer
from pipeline.report.series import read_speed
from pipeline.report.shards import read_manifests, shard_figures
from pipeline.report.verdict import judge
from pipeline.sessions import summed_up
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.location import open_parquet
from pipeline.storage.lock import living_owner
from pipeline.storage.parts import PartManifest

STILL_MOVING = timedelta(seconds=60)  # a run whose series is younger has not stopped


def gather(run: RunLayout, dataset: DatasetLayout, now: datetime | None = None) -> RunFigures:
    """The figures of `run`, compared with the runs before it. `now` (default: the clock): is it still going?

    Raises `DataError` if there is no such run, `CorruptPartError` if night.json or quality.json is none.
    """
    if not run.root.exists():
        raise DataError(f"{run.root}: no such run")
    night = read_night(run.night)
    manifest = manifest_of(run)
    facts = _facts(run, dataset, manifest, night)
    manifests, broken = read_manifests(run)
    rows, unreadable = _rows(run, manifests)
    rows = _with_titles(rows, dataset)
    facts = _with_rules(facts, rows)
    shards = shard_figures(run, manifests, _num_shards_planned(run), broken + unreadable)
    speed, first, last = _speed(run, manifest)
    num_failed, failed_of_kind, failures = read_failures(run, manifests)
    facts = replace(facts, kinds=_kinds(manifest, night, failed_of_kind))
    started_at, ended_at = _span(night, manifests, rows, first, last)
    seconds = (ended_at - started_at).total_seconds() if started_at and ended_at else None
    is_going = _is_worked_on(run, dataset) if night else _is_moving(last, now or datetime.now(UTC))
    num_rows, num_bad = rows.of_kind().num_rows, num_failed.get(GENERATE_STAGE, 0)
    verdict = judge(facts, shards, speed, num_rows, num_bad, seconds, night, is_going)
    metrics = metrics_of(rows, speed, shards, num_failed, night, seconds, facts.aboutness)
    record = make_record(facts, verdict.state, night, started_at, metrics)
    earlier = earlier_records(run.root.parent, record)
    return RunFigures(
        facts=facts,
        verdict=verdict,
        started_at=started_at,
        ended_at=ended_at,
        rows=rows,
        speed=speed,
        shards=shards,
        num_failed=num_failed,
        failures=failures,
        night=night,
        quality=read_quality(run.quality),
        validation=read_validation(run.validation),
        record=record,
        history=earlier,
        compared=compare(metrics, earlier, facts.is_new),
    )


def _is_worked_on(run: RunLayout, dataset: DatasetLayout) -> bool:
    """Whether a living process says that it works on this night."""
    owner = living_owner(dataset.lock)
    return owner is not None and owner.run_id == run.root.name


def _is_moving(last: datetime | None, now: datetime) -> bool:
    """Whether the time series of a plain run, whose lock has no owner's name, was written moments ago."""
    return last is not None and now - last < STILL_MOVING


def manifest_of(run: RunLayout) -> dict[str, Any]:
    """manifest.json, empty if there is none or it is unreadable."""
    try:
        content = json.loads(run.manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _facts(run: RunLayout, dataset: DatasetLayout, manifest: dict[str, Any], night: Night | None) -> RunFacts:
    settings = manifest.get("settings") or {}
    summary = manifest.get("summary")
    return RunFacts(
        run_id=run.root.name,
        dataset=dataset.root.name,
        model=_at(settings, "model", "name"),
        knowledge=_at(settings, "knowledge", "name"),
        drafter=_at(settings, "drafter", "name"),
        acceptance=_at(settings, "acceptance", "name"),
        datastore_version=_drafted_from(manifest, night),
        max_failed_fraction=manifest.get("max_failed_fraction", settings.get("max_failed_fraction")),
        num_planned=manifest.get("num_planned"),
        num_repeated_prompts=manifest.get("num_repeated_prompts") or 0,
        has_ended=summary is not None,
        unfinished_reasons=(summary or {}).get("unfinished") or {},
        objection=manifest.get("objection"),
        remarks=tuple((summary or {}).get("remarks") or ()),
        outputs=_outputs(summary or {}),
        aboutness=aboutness_in((summary or {}).get("aboutness") or {}),
        num_malformed=_malformed(summary or {}),
    )


def _kinds(manifest: dict[str, Any], night: Night | None, num_failed: Mapping[str, int]) -> list[KindCounts]:
    """The entities of each kind as the manifest has them, and what became of them."""
    changes = night.counts if night else {}
    found = []
    for kind, counts in (manifest.get("kinds") or {}).items():
        kept = sum(
            changes.get(kind, {}).get(name, 0) for name in ("carried", "unprompted", "outside", "kept_old")
        )
        found.append(replace(KindCounts(**counts), num_failed=num_failed.get(kind, 0), num_kept=kept))
    return found


def _drafted_from(manifest: dict[str, Any], night: Night | None) -> str | None:
    """The pools that the run drafted from; those in force, if it had nothing to write."""
    if manifest or night is None:
        return manifest.get("datastore_version")
    return night.datastore_version


def _outputs(summary: dict[str, Any]) -> dict[str, OutputCounts]:
    kinds = summary.get("kinds") or {}
    return {kind: OutputCounts(**(values.get("outputs") or {})) for kind, values in kinds.items()}


def _malformed(summary: dict[str, Any]) -> dict[str, int]:
    kinds = summary.get("kinds") or {}
    numbers = {kind: values.get("num_malformed") for kind, values in kinds.items()}
    return {kind: number for kind, number in numbers.items() if number is not None}


def _at(values: dict[str, Any], *path: str) -> Any:
    """The value at a path of keys, None if it is not there."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _with_rules(facts: RunFacts, rows: RowFigures) -> RunFacts:
    """The acceptance rules as the rows name them; without rows, the configured one's name stays."""
    rules = sorted({rule for of_group in rows.rules.values() for rule in of_group})
    return replace(facts, acceptance=", ".join(rules)) if rules else facts


def _rows(run: RunLayout, manifests: list[PartManifest]) -> tuple[RowFigures, list[str]]:
    """(figures of the rows, a line for each part that cannot be read)."""
    gatherer = RowGatherer(run, sum(manifest.num_rows for manifest in manifests))
    unreadable = []
    for manifest in manifests:
        try:
            gatherer.add(manifest.shard)
        except (OSError, pa.ArrowException) as error:
            unreadable.append(f"{run.part(manifest.shard)}: {str(error).splitlines()[0]}")
    return gatherer.figures(), unreadable


def _with_titles(rows: RowFigures, dataset: DatasetLayout) -> RowFigures:
    """`rows` whose samples of items have titles, as far as the tables of the dataset can tell."""
    ids = [sample.entity_id for sample in rows.samples if sample.kind == "item"]
    try:
        titles = item_titles(dataset.tables, ids)
    except (OSError, pa.ArrowException):  # a report tells of the run, also where its tables are damaged
        titles = {}
    samples = [
        replace(sample, title=titles.get(sample.entity_id) if sample.kind == "item" else None)
        for sample in rows.samples
    ]
    return replace(rows, samples=samples)


def _num_shards_planned(run: RunLayout) -> int | None:
    """Shards of plan.parquet, None if there is no plan."""
    try:
        with open_parquet(run.plan) as file:
            shards: set[str] = set()
            for batch in file.iter_batches(columns=["shard"]):
                shards.update(batch["shard"].unique().to_pylist())
    except (OSError, pa.ArrowException):
        return None
    return len(shards)


def _speed(run: RunLayout, manifest: dict[str, Any]) -> tuple[Speed, datetime | None, datetime | None]:
    """Out of the time series; a run of a release without one knows its last session."""
    speed, first, last = read_speed(read_series(run.progress))
    summary = manifest.get("summary")
    if speed.num_sessions or not summary or not summary.get("tokens_per_sec"):
        return speed, first, last
    spent = summed_up(summary)
    sources = {
        name: SourceCounts(counts["num_draft_tokens"], counts["num_accepted_tokens"])
        for name, counts in summary.get("sources", {}).items()
    }
    return Speed(spent.decode_sec, spent.num_tokens, num_sessions=1, sources=sources), None, None


def _span(
    night: Night | None,
    manifests: list[PartManifest],
    rows: RowFigures,
    first: datetime | None,
    last: datetime | None,
) -> tuple[datetime | None, datetime | None]:
    """(beginning, end) as the night tells them, else as series, shards and rows show them."""
    begins = [first, rows.first_at, *(manifest.started_at for manifest in manifests)]
    ends = [last, rows.last_at, *(manifest.finished_at for manifest in manifests)]
    begin = (night.started_at if night else None) or min((t for t in begins if t), default=None)
    end = (night.ended_at if night else None) or max((t for t in ends if t), default=None)
    return begin, end
