import pytest

from pipeline.report.gather import gather
from pipeline.report.night import Night
from tests.unit.pipeline.report.conftest import RunBuilder


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


def test_a_night_that_says_nearly_nothing_is_taken_as_it_is(builder, dataset):
    layout = builder.build()
    layout.night.write_text("{}")
    figures = gather(layout, dataset)
    assert figures.verdict.state == "done"
    assert figures.night == Night()


def test_a_night_that_runs_is_no_failure(builder, dataset):
    layout = builder.build(has_summary=False)
    builder.night(status="running", ended_at=None)
    assert gather(layout, dataset).verdict.state == "running"


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
