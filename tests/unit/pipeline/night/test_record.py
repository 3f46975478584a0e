import json

import pytest

from pipeline.errors import CorruptPartError, DataError
from pipeline.night.record import (
    NightRecord,
    NightStopped,
    free_run_id,
    is_finished,
    read_record,
    unfinished_night,
    unfinished_record,
)
from pipeline.publish.snapshot import LEFT
from pipeline.storage.files import write_text
from pipeline.storage.layout import DatasetLayout


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    return DatasetLayout.of(tmp_path, "toy")


def begun(layout, run_id="n1", identity="i", stop_after=None) -> NightRecord:
    record = NightRecord("toy", stop_after)
    with record.step("tables"):
        pass
    record.bind(layout.run(run_id), identity, None)
    return record


def content(layout, run_id="n1") -> dict:
    return json.loads(layout.run(run_id).night.read_text())


def test_a_night_is_told_before_its_plan_says_which_it_is(layout):
    record = NightRecord("toy")
    record.begin(layout.run("2026-11-22"), note="x")
    assert (content(layout, "2026-11-22")["status"], record.run_id) == ("running", "2026-11-22")
    with pytest.raises(DataError), record.step("tables"):
        raise DataError("u.data is gone")
    assert content(layout, "2026-11-22")["error"] == "tables: u.data is gone"
    assert free_run_id(layout, "2026-11-22") == "2026-11-22", "it has done nothing under that name"

    again = NightRecord("toy")
    again.begin(layout.run("2026-11-22"))
    assert content(layout, "2026-11-22")["steps"] == [] and "note" not in content(layout, "2026-11-22")
    again.bind(layout.run("2026-11-22"), "i", None)
    assert free_run_id(layout, "2026-11-22") == "2026-11-22-2"


def test_a_night_that_goes_on_takes_its_own_folder(layout):
    begun(layout, "n1")
    record = NightRecord("toy")
    record.begin(layout.run("n2"))
    record.bind(layout.run("n1"), "i", None)
    assert record.run_id == content(layout, "n1")["run_id"] == "n1" and not layout.run("n2").root.exists()


def test_steps_before_the_run_had_a_name_are_written_with_it(layout):
    record = begun(layout)
    assert content(layout)["status"] == "running"
    with record.step("plan"):
        assert [step["name"] for step in content(layout)["steps"]] == ["tables"]
    assert [step["name"] for step in content(layout)["steps"]] == ["tables", "plan"]


def test_a_failed_step_is_told_with_its_reason(layout):
    record = begun(layout)
    with pytest.raises(DataError), record.step("generate"):
        raise DataError("u.data is gone")
    record.fail(DataError("the same"))
    night = content(layout)
    assert night["status"] == "failed" and night["error"] == "generate: u.data is gone"
    assert night["steps"][-1] | {"seconds": 0} == {
        "name": "generate", "seconds": 0, "status": "failed", "error": "u.data is gone",
    }  # fmt: skip


def test_a_night_that_stopped_is_found_by_what_it_was_about(layout):
    record = begun(layout, stop_after="plan")
    with pytest.raises(NightStopped), record.step("plan"):
        pass
    assert content(layout)["status"] == "stopped"
    assert unfinished_night(layout, "i") == "n1" and unfinished_night(layout, "other") is None

    started_at = content(layout)["started_at"]
    again = begun(layout)
    assert content(layout)["started_at"] == started_at
    assert [step["name"] for step in content(layout)["steps"]] == ["tables", "plan"]
    again.finish()
    assert unfinished_record(layout, "n1") is not None, "its report is missing"
    with again.step("report"):
        pass
    assert is_finished(content(layout)) and unfinished_night(layout, "i") is None


def test_run_ids_are_days_with_a_number_if_used(layout):
    assert free_run_id(layout, "2026-11-22") == "2026-11-22"
    begun(layout, "2026-11-22")
    layout.snapshot("2026-11-22-2").mkdir(parents=True)
    assert free_run_id(layout, "2026-11-22") == "2026-11-22-3"


def test_a_night_whose_version_a_rollback_left_does_not_go_on(layout):
    begun(layout)
    write_text("", layout.snapshot("n1") / LEFT)
    assert unfinished_night(layout, "i") is None and unfinished_record(layout, "n1") is None


def test_a_broken_record_is_named(layout):
    begun(layout)
    layout.run("n1").night.write_text("{")
    with pytest.raises(CorruptPartError, match=r"n1/night\.json: unreadable"):
        read_record(layout.run("n1").night)


def test_a_broken_record_of_another_night_does_not_stop_tonight(layout, caplog):
    begun(layout, "n1")
    begun(layout, "n2")
    layout.run("n2").night.write_text("{")
    assert unfinished_night(layout, "i") == "n1"
    assert "a night is passed over: " in caplog.text and "n2/night.json" in caplog.text
