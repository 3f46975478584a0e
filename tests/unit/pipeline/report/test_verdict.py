import json
from dataclasses import asdict
from datetime import timedelta
from typing import get_args

import pyarrow as pa
import pytest

from pipeline.failure_bound import NO_INTERACTIONS, KindCounts
from pipeline.publish_settings import Step
from pipeline.report.document import build_document
from pipeline.report.gather import gather
from pipeline.report.history import compare
from pipeline.report.night import Night
from pipeline.report.verdict import ADVICE
from pipeline.report.write import write_report
from pipeline.schemas import FAILED
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.lock import owned
from tests.unit.pipeline.report.conftest import BEGIN, RunBuilder


def test_a_good_night_says_what_was_written_and_carried(builder, dataset):
    layout = builder.build()
    builder.night()
    verdict = gather(layout, dataset).verdict
    assert verdict.state == "done"
    assert verdict.headline == (
        "The night went well: all 12 texts were written in 10 min; 109 were carried over. "
        "Version v1 is in force."
    )
    assert (verdict.reason, verdict.advice) == (None, None)


def test_a_night_without_changes_says_so(builder, dataset):
    builder.layout.root.mkdir(parents=True)
    builder.night(counts={"user": {"carried": 943}}, decode_sec=0.0)
    figures = gather(builder.layout, dataset)
    assert figures.verdict.headline == (
        "Nothing had changed: all 943 entities were carried over, no engine was started. "
        "Version v1 is in force."
    )
    assert figures.rows.of_kind().num_rows == 0


@pytest.mark.parametrize("change", ["gone", "withheld"])
def test_a_night_that_only_let_entities_go_does_not_say_that_nothing_changed(builder, dataset, change):
    builder.layout.root.mkdir(parents=True)
    builder.night(counts={"user": {"carried": 940, change: 3}}, decode_sec=0.0)
    assert gather(builder.layout, dataset).verdict.headline == (
        "The night went well: no text had to be written; 940 were carried over. Version v1 is in force."
    )


@pytest.mark.parametrize("key", ["error", "reason"])
def test_a_failed_night_names_step_reason_version_and_what_to_do(builder, dataset, key):
    layout = builder.build()
    steps = [
        {"name": "generate", "status": "done"},
        {"name": "validate", "status": "failed", key: "6 % of the texts loop, at most 5 % may"},
    ]
    builder.night(status="failed", steps=steps, version=None)
    verdict = gather(layout, dataset).verdict
    assert verdict.state == "failed"
    assert verdict.headline.startswith("The night failed at step validate: 12 of 12 texts were written")
    assert verdict.headline.endswith("Version v0 stays in force.")
    assert verdict.reason == "6 % of the texts loop, at most 5 % may"
    assert "was not published" in verdict.advice


def test_a_night_that_the_gate_ended_is_not_told_to_run_the_same_again(builder, dataset):
    layout = builder.build()
    error = "run_id=night-1: only 11 of 24 relaxed texts could be compared"
    builder.night(
        status="failed", version=None, steps=[{"name": "quality", "status": "failed", "error": error}]
    )
    verdict = gather(layout, dataset).verdict
    assert verdict.headline.startswith("The night failed at step quality") and verdict.reason == error
    assert "quality.max_*" in verdict.advice and "retry_failed=true" in verdict.advice
    assert "Run the same command again" not in verdict.advice


def test_every_step_of_a_night_has_its_advice():
    assert set(get_args(Step)) <= set(ADVICE)


def test_a_night_that_says_nearly_nothing_is_taken_as_it_is(builder, dataset):
    layout = builder.build()
    layout.night.write_text("{}")
    figures = gather(layout, dataset)
    assert figures.verdict.state == "done"
    assert figures.night == Night()


def test_a_night_that_runs_is_no_failure(builder, dataset):
    layout = builder.build(has_summary=False)
    builder.night(status="running", ended_at=None)
    with owned(dataset.lock, layout.root.name):
        assert gather(layout, dataset).verdict.state == "running"


def test_a_night_whose_process_is_gone_was_stopped(builder, dataset):
    layout = builder.build(has_summary=False)
    builder.night(status="running", ended_at=None)
    verdict = gather(layout, dataset).verdict
    assert verdict.state == "stopped" and "was killed" in verdict.reason and "same command" in verdict.advice
    with owned(dataset.lock, "the next night"):
        assert gather(layout, dataset).verdict.state == "stopped"


def test_failed_rows_are_retried_by_the_job_that_wrote_them(dataset):
    builder = RunBuilder(dataset, failing=frozenset({"3", "5"}))
    layout = builder.build()
    assert "python -m jobs.generate ... retry_failed=true" in gather(layout, dataset).verdict.advice
    builder.night(status="failed", steps=[{"name": "validate", "status": "failed", "error": "too many"}])
    assert "python -m jobs.nightly ... retry_failed=true" in gather(layout, dataset).verdict.advice


def test_job_and_report_count_failed_rows_alike(dataset):
    layout = RunBuilder(dataset, failing=frozenset({"3"})).build()
    assert gather(layout, dataset).verdict.state == "done"  # one of a handful, as for `require_complete`
    promptless = [
        {"stage": "prompt", "entity_id": str(n), "kind": "item", "reason": "no title"} for n in "67"
    ]
    write_parquet(pa.Table.from_pylist(promptless, schema=FAILED), layout.failed)
    figures = gather(layout, dataset)
    assert (figures.verdict.state, figures.num_failed) == ("done", {"prompt": 2})


@pytest.mark.parametrize(
    ("rejected", "unknown", "state", "tile"),
    [(2, 0, "failed", "14.3 % of 14 entities"), (1, 3, "done", "25.0 % of 16 entities")],
)
def test_entities_without_a_prompt_count_and_raw_rows_do_not(
    builder, dataset, rejected, unknown, state, tile
):
    layout = builder.build()
    reasons = ["the title is empty"] * rejected + [NO_INTERACTIONS] * unknown
    rows = [
        {"stage": "prompt", "entity_id": f"x{n}", "kind": "item", "reason": r} for n, r in enumerate(reasons)
    ]
    rows += [{"stage": "read", "file": "items.csv", "line": n, "reason": "no title"} for n in range(50)]
    write_parquet(pa.Table.from_pylist(rows, schema=FAILED), layout.failed)
    counts = KindCounts("item", 12, rejected, unknown, num_planned=12)
    write_json(json.loads(layout.manifest.read_text()) | {"kinds": {"item": asdict(counts)}}, layout.manifest)
    figures = gather(layout, dataset)
    assert figures.verdict.state == state
    assert f"{rejected + unknown} entities got no prompt" in figures.verdict.headline or state == "failed"
    tiles = {shown.label: (shown.value, shown.note) for shown in build_document(figures).tiles}
    assert tiles["failed rows"] == (str(rejected + unknown), tile)
    assert tiles["bad raw rows"][0] == "50" and figures.record["metrics"]["num_failed"] == rejected + unknown
    builder.night()  # as a night whose record says that it went well
    assert gather(layout, dataset).verdict.state == state


def test_figures_of_drafts_from_earlier_answers_are_said_to_be_so_and_are_not_compared(dataset):
    """The first night's pools hold texts of the very same prompts; those of the second are new."""
    flattered, usual = (
        RunBuilder(dataset, "one", BEGIN),
        RunBuilder(dataset, "two", BEGIN + timedelta(days=1)),
    )
    for builder, num_repeated in ((flattered, 12), (usual, 0)):
        layout = builder.build()
        manifest = json.loads(layout.manifest.read_text())
        write_json(manifest | {"num_repeated_prompts": num_repeated}, layout.manifest)
        builder.night()
        written = write_report(layout, dataset)
    compared = {c.name: c for c in written.figures.compared}
    assert compared["num_rows"].median == 12 and compared["tokens_per_step"].value is not None
    assert compared["tokens_per_step"].median is None and compared["elapsed_sec"].median is None
    assert "Speed and drafts leave out 1 of them" in layout.report("md").read_text()
    said = "12 of 12 prompts of this run were answered before"
    assert said in flattered.layout.report("md").read_text() and said not in layout.report("md").read_text()
    assert not any(
        c.median
        for c in compare(written.figures.record["metrics"], [written.figures.record], False)
        if c.name == "tokens_per_step"
    )


def test_the_bound_is_that_of_the_last_session(dataset):
    layout = RunBuilder(dataset, failing=frozenset({"3", "5"})).build()
    assert gather(layout, dataset).verdict.state == "failed"
    write_json(json.loads(layout.manifest.read_text()) | {"max_failed_fraction": 0.5}, layout.manifest)
    assert gather(layout, dataset).verdict.state == "done"


def test_a_night_that_was_told_to_stop_says_after_which_step(builder, dataset):
    layout = builder.build()
    builder.night(status="stopped")
    verdict = gather(layout, dataset).verdict
    assert verdict.state == "stopped"
    assert verdict.headline.startswith("The night stopped after step generate, as it was told to: 12 of 12")


def test_a_night_that_only_lost_entities_wrote_no_text(dataset):
    layout = RunBuilder(dataset, num_shards=0, finished=0).build()
    RunBuilder(dataset).night(counts={"user": {"carried": 5, "gone": 2}})
    verdict = gather(layout, dataset).verdict
    assert verdict.headline.startswith("The night went well: no text had to be written; 5 were carried over.")


def test_a_night_that_is_done_in_the_end_went_well_whatever_failed_in_an_earlier_session(builder, dataset):
    layout = builder.build()
    builder.night(steps=[{"name": "report", "status": "failed", "error": "disk full"}])
    assert gather(layout, dataset).verdict.state == "done"
