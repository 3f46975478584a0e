"""`python -m jobs.generate`: from raw data to knowledge in Parquet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point
from pipeline.printable import plural

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.road import RunReport
    from pipeline.settings import RunSettings


@entry_point(
    "generate",
    "Write a knowledge text for every user and item, with vLLM and retrieval drafts.",
    examples=["dataset=movielens", "dataset=movielens limit=20 acceptance=strict", "limit=100 offset=200"],
)
def main(settings: RunSettings) -> None:
    """Generate, then say what came out and where it is."""
    from pipeline.stages import messages, stage

    with stage("loading libraries", is_short=True):
        from rich.console import Console

        from pipeline.domains.raw.watch import reading_shown_on
        from pipeline.dry_run import dry_run, render_dry_run
        from pipeline.generate.progress import progress_view
        from pipeline.generate.summary import render, render_examples
        from pipeline.road import generate_knowledge

    out = Console()
    if settings.dry_run:
        with reading_shown_on(messages()):
            result = dry_run(settings)
        render_dry_run(result, out)
        return
    with reading_shown_on(messages()):
        report = generate_knowledge(settings, lambda: progress_view(messages(), settings.model.name))
    out.print(f"\nRun {report.run_id}", highlight=False)
    render(report.summary, out)
    render_examples(report.examples, out)
    _print_coverage(report, settings, out)


def _print_coverage(report: RunReport, settings: RunSettings, out: Console) -> None:
    if report.datastore_version is not None:
        pools = f"{'pools':<12} {report.datastore_version}: the next run drafts from these texts too"
        out.print(pools, markup=False, highlight=False, soft_wrap=True)
    if report.coverage.is_sample:
        planned = plural(report.coverage.num_planned, "entity", "entities")
        out.print(
            f"\nThis was a sample of {planned}. LIMIT=all generates all {plural(report.num_users, 'user')} "
            f"and {plural(report.num_items, 'item')} of {settings.dataset.name}.",
            highlight=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    sys.exit(main())
