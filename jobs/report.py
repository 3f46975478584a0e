"""`python -m jobs.report`: the morning report of a run or a night; also `make report`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point
from pipeline.errors import DataError, ReportError

if TYPE_CHECKING:
    from pipeline.settings import RunSettings
    from pipeline.storage.layout import DatasetLayout, RunLayout


@entry_point(
    "report",
    "Write the report of a run (default: the latest) as report.md, report.html and metrics.prom.",
    examples=["dataset=movielens", "dataset=movielens run_id=NAME", "report.pushgateway=localhost:9091"],
)
def main(settings: RunSettings) -> None:
    """Write the report, say how the run went and where the files are."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from pipeline.report import write_report  # matplotlib and its fonts take a second
        from pipeline.storage.layout import DatasetLayout

    dataset = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    with stage("writing the report", is_short=True):
        written = write_report(chosen_run(settings, dataset), dataset, settings.report.pushgateway)
    verdict = written.figures.verdict
    print(f"{written.figures.facts.run_id}: {verdict.headline}")
    for name, text in (("why", verdict.reason), ("what to do", verdict.advice)):
        if text:
            print(f"{name}: {text}")
    print(f"\n{written.html}\n{written.markdown}\n{written.metrics}")
    if written.push_error is not None:
        raise ReportError(f"the metrics were not pushed: {written.push_error}")


def chosen_run(settings: RunSettings, dataset: DatasetLayout) -> RunLayout:
    """The run that was asked for, else the latest."""
    from pipeline.report.write import latest_run

    if settings.run_id is not None:
        return dataset.run(settings.run_id)
    run = latest_run(dataset)
    if run is None:
        raise DataError(f"{dataset.runs}: no run yet; make generate or make nightly makes one")
    return run


if __name__ == "__main__":
    sys.exit(main())
