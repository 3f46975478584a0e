from datetime import timedelta

import pytest

from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.history import change
from tests.unit.pipeline.report.conftest import BEGIN, RunBuilder


def written_night(dataset, day, num_tokens=8, status="done"):
    builder = RunBuilder(
        dataset, run_id=f"night-{day}", begin=BEGIN + timedelta(days=day), num_tokens=num_tokens
    )
    layout = builder.build()
    builder.night(status=status)
    write_report(layout, dataset)
    return layout


def compared(figures, name):
    return next(item for item in figures.compared if item.name == name)


def test_a_night_is_compared_with_the_last_seven_before_it(dataset):
    for day in range(9):
        written_night(dataset, day, num_tokens=8 + day)
    figures = gather(dataset.run("night-8"), dataset)
    assert [record["run_id"] for record in figures.history] == [f"night-{day}" for day in range(1, 8)]
    item = compared(figures, "tokens_per_step")
    assert (item.value, item.median, item.low, item.high) == (4.0, 3.0, 2.25, 3.75)
    assert (item.flag, change(item)) == ("above", pytest.approx(1 / 3))
    assert compared(figures, "num_rows").flag == ""
    assert gather(dataset.run("night-1"), dataset).history[0]["run_id"] == "night-0"


def test_nights_that_failed_are_shown_but_not_compared_with(dataset):
    for day, status in enumerate(["done", "done", "failed", "done"]):
        written_night(dataset, day, num_tokens=80 if status == "failed" else 8, status=status)
    figures = gather(dataset.run("night-3"), dataset)
    assert [record["state"] for record in figures.history] == ["done", "done", "failed"]
    item = compared(figures, "tokens_per_step")
    assert (item.high, item.num_nights) == (2.0, 2)


def test_one_night_before_gives_a_change_but_no_range_to_be_outside_of(dataset):
    written_night(dataset, 0)
    figures = gather(written_night(dataset, 1, num_tokens=16), dataset)
    item = compared(figures, "tokens_per_step")
    assert (item.num_nights, item.flag, change(item)) == (1, "", 1.0)


def test_nights_are_not_compared_with_plain_runs_nor_with_torn_reports(dataset):
    layout = RunBuilder(dataset, run_id="plain", begin=BEGIN - timedelta(days=1)).build()
    write_report(layout, dataset)
    torn = written_night(dataset, 0)
    torn.report("json").write_text('{"run_id": ')
    odd = written_night(dataset, 1)
    odd.report("json").write_text('["a list"]')
    assert gather(written_night(dataset, 2), dataset).history == []
