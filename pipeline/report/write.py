"""Writes the report beside its run."""

import logging
from dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.report.document import build_document
from pipeline.report.figures import RunFigures
from pipeline.report.gather import gather, manifest_of
from pipeline.report.html import to_html
from pipeline.report.markdown import to_markdown
from pipeline.report.prometheus import push, to_prometheus
from pipeline.storage.files import write_json, write_text
from pipeline.storage.layout import DatasetLayout, RunLayout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenReport:
    """What was written, and what it says first."""

    figures: RunFigures
    markdown: str  # paths
    html: str
    metrics: str
    push_error: str | None = None  # one line; None if pushed, or not asked for


def write_report(
    run_layout: RunLayout, dataset_layout: DatasetLayout, pushgateway: str | None = None
) -> WrittenReport:
    """Write report.md, report.html, report.json and metrics.prom of a run, good or failed.

    The metrics of the dataset's latest run lie below the dataset's folder too, where a collector finds them.
    They go out first, to the gateway before the files: an alert must not wait for a page, or for space.

    `pushgateway` (default: `report.pushgateway` of the run's recorded settings) takes the metrics too; one
    that does not answer is logged and told in the result, it is no reason to fail a night. Raises
    `DataError` if there is no such run, or its texts were pruned since its report was written;
    `CorruptPartError` if its night.json or quality.json is unreadable.
    """
    _reject_pruned(run_layout)
    figures = gather(run_layout, dataset_layout)
    push_error = _push(figures, pushgateway or _recorded_gateway(run_layout))
    _write_metrics(figures, run_layout, dataset_layout)
    document = build_document(figures)
    write_text(to_markdown(document), run_layout.report("md"))
    write_text(to_html(document, figures), run_layout.report("html"))
    write_json(figures.record, run_layout.report("json"))
    return WrittenReport(
        figures=figures,
        markdown=str(run_layout.report("md")),
        html=str(run_layout.report("html")),
        metrics=str(run_layout.metrics),
        push_error=push_error,
    )


def _reject_pruned(run: RunLayout) -> None:
    """A report of what was removed would say that nothing was written; the one of then stays."""
    report = run.report("md")
    num_planned = manifest_of(run).get("num_planned") or 0
    if num_planned and report.exists() and not run.plan.exists() and not run.parts.exists():
        raise DataError(
            f"{run.root}: plan and parts were removed with the run's version; {report} tells of them"
        )


def _write_metrics(figures: RunFigures, run: RunLayout, dataset: DatasetLayout) -> None:
    text = to_prometheus(figures)
    if latest_run(dataset) == run:
        write_text(text, dataset.metrics)
    write_text(text, run.metrics)


def latest_run(dataset_layout: DatasetLayout) -> RunLayout | None:
    """The run that was begun last, None if there is none."""
    runs = [RunLayout(path) for path in dataset_layout.runs.glob("*") if path.is_dir()]
    begun = [(max(times), run) for run in runs if (times := _change_times(run))]
    return max(begun, key=lambda item: item[0])[1] if begun else None


def _change_times(run: RunLayout) -> list[float]:
    return [path.stat().st_mtime for path in (run.manifest, run.night) if path.exists()]


def _recorded_gateway(run: RunLayout) -> str | None:
    try:
        gateway = manifest_of(run)["settings"]["report"]["pushgateway"]
    except (LookupError, TypeError):
        return None
    return gateway if isinstance(gateway, str) else None


def _push(figures: RunFigures, gateway: str | None) -> str | None:
    if gateway is None:
        return None
    try:
        push(figures, gateway)
    except (OSError, ValueError) as error:
        reason = f"report.pushgateway={gateway}: {' '.join(str(error).split())}"
        logger.warning("the metrics were not pushed: %s", reason)
        return reason
    return None
