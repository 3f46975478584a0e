import json
import logging
from datetime import UTC, datetime

import pytest

from pipeline.generate.contract import SourceCounts, WorkerProgress
from pipeline.generate.progress import NO_PROGRESS, ProgressTracker
from pipeline.generate.time_series import TimeSeries, append_line, read_series

PROGRESS = WorkerProgress(3, 30, 15, 12, 8, 2, {"pool": SourceCounts(12, 8)}, 45, 9, 0.25, 4, 0.5)
MOMENT = datetime(2026, 11, 22, 3, tzinfo=UTC)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "progress.jsonl"


def series(path, clock):
    return TimeSeries(path, interval_sec=10, clock=clock, now=lambda: MOMENT)


def snapshot(clock, progress=PROGRESS):
    tracker = ProgressTracker(10, 2, num_workers=1, clock=clock)
    tracker.worker_ready(0)
    tracker.update(0, progress)
    return tracker.snapshot()


def test_a_line_holds_the_moment_the_rows_and_the_totals(path, clock):
    series(path, clock).update(snapshot(clock))
    (line,) = read_series(path)
    assert line["time"] == "2026-11-22T03:00:00.000+00:00"
    assert (line["num_rows_done"], line["num_rows_total"], line["num_workers"]) == (5, 10, 1)
    assert (line["num_decoded_tokens"], line["num_running"], line["price"]) == (45, 4, 0.5)
    assert (line["drafter_sec"], line["num_engine_steps"]) == (0.25, 9)
    assert line["sources"] == {"pool": {"num_draft_tokens": 12, "num_accepted_tokens": 8}}


def test_a_line_is_written_every_interval_and_the_last_one_at_the_end(path, clock):
    log = series(path, clock)
    for second in range(25):
        clock.now = 100.0 + second
        log.update(snapshot(clock))
    assert len(list(read_series(path))) == 3
    log.close()
    assert len(list(read_series(path))) == 4
    log.close()
    assert len(list(read_series(path))) == 4


def test_a_series_without_a_snapshot_writes_nothing(path, clock):
    series(path, clock).close()
    assert not path.exists()


def test_half_a_line_of_a_killed_driver_costs_no_other_line(path, clock):
    series(path, clock).update(snapshot(clock))
    path.write_bytes(path.read_bytes() + b'{"time": "2026-11-')
    series(path, clock).update(snapshot(clock, NO_PROGRESS))
    lines = list(read_series(path))
    assert [line["num_rows"] for line in lines] == [3, 0]
    assert lines[0]["session"] != lines[1]["session"]


def test_lines_that_are_no_records_are_passed_over(path):
    for line in ("[1]\n", '"x"\n', "\n", json.dumps({"a": 1}) + "\n"):
        append_line(path, line)
    assert list(read_series(path)) == [{"a": 1}]


def test_there_is_no_series_without_a_file(path):
    assert list(read_series(path)) == []


def test_a_series_that_cannot_be_written_is_given_up_with_one_warning(path, clock, caplog):
    path.mkdir(parents=True)
    log = series(path, clock)
    with caplog.at_level(logging.WARNING):
        log.update(snapshot(clock))
        clock.now += 20
        log.update(snapshot(clock))
    assert len(caplog.records) == 1
