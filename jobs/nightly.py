"""`python -m jobs.nightly`: generate what changed, publish it; also `make nightly`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.night.dry_run import NightDryRun
    from pipeline.night.night import NightReport
    from pipeline.settings import Kind, RunSettings
    from pipeline.storage.layout import DatasetLayout

COUNTS = ("planned", "new", "changed", "carried", "outside", "gone", "failed", "kept_old")
COUNTS_BEFORE = ("planned", "new", "changed", "carried", "outside", "withheld", "gone")


@entry_point(
    "nightly",
    "Generate what changed since the last night, and publish it with its pools, all or nothing.",
    config_name="nightly",
    examples=["dataset=movielens", "dataset=movielens dry_run=true", "history_cutoff=2026-11-22T00:00Z"],
)
def main(settings: RunSettings) -> None:
    """Run the night, or go on with the one that stopped, then say what it did."""
    from pipeline.stages import messages, stage

    with stage("loading libraries", is_short=True):
        from rich.console import Console

        from pipeline.domains.raw.watch import reading_shown_on
        from pipeline.generate.aboutness import aboutness_in
        from pipeline.generate.progress import progress_view
        from pipeline.generate.summary import aboutness_lines, example_texts, render_examples
        from pipeline.night.dry_run import dry_run_night
        from pipeline.night.night import finished_night, run_night
        from pipeline.storage.files import read_json
        from pipeline.storage.layout import DatasetLayout
        from pipeline.storage.parts import knowledge_dataset

    out = Console()
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    done = finished_night(settings, layout)
    if done is not None:
        _print_done(done, layout, out)
        return
    with reading_shown_on(messages()):
        if settings.dry_run:
            _print_dry_run(dry_run_night(settings), out)
            return
        report = run_night(settings, lambda: progress_view(messages(), settings.model.name))
    if report.run_id is None or "counts" not in report.values:  # before the plan
        out.print(f"stopped after {report.stopped_after}, as nightly.stop_after asks")
        return
    out.print(f"\nNight {report.run_id}", highlight=False)
    _print_counts(report.values["counts"], COUNTS, out)
    run = layout.run(report.run_id)
    summary = (read_json(run.manifest) or {}).get("summary") or {}
    for name, value in [*aboutness_lines(aboutness_in(summary.get("aboutness") or {})), *_lines(report)]:
        out.print(f"{name:<12} {value}", markup=False, highlight=False, soft_wrap=True)
    render_examples(example_texts(knowledge_dataset(run), layout.tables), out)


def _print_done(report: NightReport, layout: DatasetLayout, out: Console) -> None:
    """A night that is started again by a scheduler: what it did, and what became of its version."""
    from pipeline.publish.snapshot import name_in_force, was_left

    version, current = report.values.get("version"), name_in_force(layout)
    ended = report.values.get("ended_at")
    lines = [f"Night {report.run_id} is done (it ended at {ended}); nothing is left to do."]
    if version == current:
        lines.append(f"The current version is {current}, which this night published or confirmed.")
    elif version is not None and was_left(layout, version):
        lines.append(f"The current version is {current}; version {version} of this night was rolled back.")
    else:
        lines.append(f"The current version is {current}; that of this night was {version}.")
    out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print_dry_run(result: NightDryRun, out: Console) -> None:
    _print_counts(result.counts, COUNTS_BEFORE, out)
    tokens = ", ".join(f"{kind}s {number:,}" for kind, number in result.num_prompt_tokens.items())
    out.print(f"Prompt tokens of the planned: {tokens}.", highlight=False)
    for kind, number in result.num_texts.items():
        if number < (planned := result.counts[kind]["planned"]):
            line = f"{planned:,} planned {kind}s have {number:,} texts: those with the same prompt share one."
            out.print(line, highlight=False)
    if result.is_unchanged:
        line = f"Nothing changed: the night would confirm version {result.base_version}."
    elif result.base_version is None:
        line = "No version is in force: the night would be the first."
    else:
        line = f"The night would go from version {result.base_version}."
    out.print(f"{line} Nothing was generated or written.", highlight=False, soft_wrap=True)


def _print_counts(counts: Mapping[Kind, Mapping[str, int]], names: Sequence[str], out: Console) -> None:
    from rich import box
    from rich.table import Table

    from pipeline.settings import KINDS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for kind in KINDS:
        table.add_row(kind, *(f"{counts[kind].get(name, 0):,}" for name in names))
    out.print(table)


def _lines(report: NightReport) -> list[tuple[str, str]]:
    from pipeline.stages import duration

    values = report.values
    steps = ", ".join(f"{step['name']} {step['seconds']:.1f} s" for step in report.steps if step["seconds"])
    lines = [(f"{change} texts", _decoding(sums)) for change, sums in values.get("by_change", {}).items()]
    if values.get("saved_decode_sec") is not None:
        saved, spent = duration(values["saved_decode_sec"]), duration(values["decode_sec"])
        lines.append(("decoding", f"{spent}; carrying over saved {saved}"))
    lines.append(("steps", steps))
    if report.stopped_after:
        return [*lines, ("stopped", f"after {report.stopped_after}; the same command goes on from there")]
    previous = values["previous_version"]
    what = "confirmed, nothing changed" if previous == values["version"] else f"before: {previous or 'none'}"
    return [*lines, ("in force", f"{values['version']} ({what}), pools {values['datastore_version']}")]


def _decoding(sums: dict[str, int]) -> str:
    if not sums["num_decode_steps"]:
        return "none"
    per_step = sums["num_output_tokens"] / sums["num_decode_steps"]
    return f"{sums['num_rows']:,}: {sums['num_output_tokens']:,} tokens, {per_step:.2f} per decode step"


if __name__ == "__main__":
    sys.exit(main())
