"""`python -m jobs.nightly`: generate what changed, publish it; also `make nightly`."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from jobs.cli import entry_point
from pipeline.generate.progress import duration, progress_view
from pipeline.night.night import NightReport, run_night
from pipeline.settings import KINDS, RunSettings

COUNTS = ("planned", "new", "changed", "carried", "outside", "gone", "failed", "kept_old")


@entry_point(
    "nightly",
    "Generate what changed since the last night, and publish it with its pools, all or nothing.",
    config_name="nightly",
    examples=["dataset=movielens", "dataset=movielens limit=20", "history_cutoff=2026-11-22T00:00Z"],
)
def main(settings: RunSettings) -> None:
    """Run the night, or go on with the one that stopped, then say what it did."""
    messages, out = Console(stderr=True), Console()
    report = run_night(settings, lambda: progress_view(messages, settings.model.name))
    if "counts" not in report.values:  # before the plan
        out.print(f"stopped after {report.stopped_after}, as nightly.stop_after asks")
        return
    out.print(f"\nNight {report.run_id}", highlight=False)
    _print_counts(report, out)
    for name, value in _lines(report):
        out.print(f"{name:<12} {value}", markup=False, highlight=False, soft_wrap=True)


def _print_counts(report: NightReport, out: Console) -> None:
    counts = report.values["counts"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind")
    for name in COUNTS:
        table.add_column(name.replace("_", " "), justify="right")
    for kind in KINDS:
        table.add_row(kind, *(f"{counts[kind].get(name, 0):,}" for name in COUNTS))
    out.print(table)


def _lines(report: NightReport) -> list[tuple[str, str]]:
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
