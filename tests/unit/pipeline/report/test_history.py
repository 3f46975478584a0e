import random
from datetime import timedelta

import pytest

from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.history import METRICS, change, compare, earlier_records
from pipeline.storage.files import write_json
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
    assert (item.flag, change(item)) == ("", pytest.approx(1 / 3))  # more is better
    assert compared(figures, "num_rows").flag == ""
    assert gather(dataset.run("night-1"), dataset).history[0]["run_id"] == "night-0"


def test_nights_that_failed_are_shown_but_not_compared_with(dataset):
    for day, status in enumerate(["done", "done", "failed", "done"]):
        written_night(dataset, day, num_tokens=80 if status == "failed" else 8, status=status)
    figures = gather(dataset.run("night-3"), dataset)
    assert [record["state"] for record in figures.history] == ["done", "done", "failed"]
    item = compared(figures, "tokens_per_step")
    assert (item.high, item.num_nights) == (2.0, 2)


@pytest.mark.parametrize("other", ["model", "knowledge", "drafter", "acceptance"])
def test_runs_with_other_settings_are_not_compared_with(tmp_path, other):
    same = {"model": "m", "knowledge": "kar", "drafter": "laser", "acceptance": "strict", "is_night": True}
    earlier = {"like": same, "unlike": same | {other: "another"}, "unknown": same | {other: None}}
    for day, (name, values) in enumerate(earlier.items()):
        record = {"run_id": name, "format_version": 1, "started_at": f"2024-01-0{day + 1}", "metrics": {}}
        write_json(record | values, tmp_path / name / "report.json")
    tonight = same | {"run_id": "tonight", "started_at": "2024-02-01"}
    assert [record["run_id"] for record in earlier_records(tmp_path, tonight)] == ["like", "unknown"]


def of_metric(name, value, before):
    return next(item for item in compare({name: value}, records(name, before)) if item.name == name)


def records(name, values):
    return [{"state": "done", "metrics": {name: value}} for value in values]


@pytest.mark.parametrize(
    ("name", "value", "before", "flag"),
    [
        ("tokens_per_sec", 74, [100, 100, 100], "below"),
        ("tokens_per_sec", 76, [100, 100, 100], ""),  # outside the range, but within the tolerance
        ("tokens_per_sec", 900, [100, 100, 100], ""),  # better
        ("tokens_per_sec", 50, [100, 100], ""),  # too few nights
        ("looping_share", 0.004, [0.001] * 3, ""),  # less than a percentage point
        ("looping_share", 0.07, [0.05] * 3, "above"),
        ("failed_share", 0.02, [0.0] * 3, "above"),
        ("elapsed_sec", 300, [20] * 3, ""),  # a night with little to do beside nights with nothing to do
        ("elapsed_sec", 7200, [3600] * 3, "above"),
        ("num_new", 500, [1] * 7, ""),  # the data's business
    ],
)
def test_only_what_is_clearly_worse_is_flagged(name, value, before, flag):
    assert of_metric(name, value, before).flag == flag


def test_nights_that_differ_by_chance_raise_no_alert():
    dice = random.Random(1)
    names = [metric.name for metric in METRICS]
    nights = [{"state": "done", "metrics": {name: dice.gauss(1000, 50) for name in names}} for _ in range(60)]
    flagged = [
        item.name
        for night in range(7, len(nights))
        for item in compare(nights[night]["metrics"], nights[night - 7 : night])
        if item.flag
    ]
    assert flagged == []


def test_nights_are_not_compared_with_plain_runs_nor_with_torn_reports(dataset):
    layout = RunBuilder(dataset, run_id="plain", begin=BEGIN - timedelta(days=1)).build()
    write_report(layout, dataset)
    torn = written_night(dataset, 0)
    torn.report("json").write_text('{"run_id": ')
    odd = written_night(dataset, 1)
    odd.report("json").write_text('["a list"]')
    assert gather(written_night(dataset, 2), dataset).history == []
