import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.generate.contract import SourceCounts, WorkerProgress
from pipeline.generate.progress import (
    NO_PROGRESS,
    PlainView,
    ProgressTracker,
    add_progress,
    duration,
    plain_line,
    progress_view,
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def worker_progress(rows, tokens=0, steps=0, sources=None):
    return WorkerProgress(rows, tokens, steps, 6 * rows, 4 * rows, 2 * rows, sources or {})


def test_totals_add_up_by_source():
    a = worker_progress(1, 10, 5, {"pool": SourceCounts(6, 4), "context": SourceCounts(1, 1)})
    b = worker_progress(2, 20, 5, {"pool": SourceCounts(10, 5)})
    both = add_progress(add_progress(NO_PROGRESS, a), b)
    assert (both.num_rows, both.num_output_tokens, both.num_decode_steps) == (3, 30, 10)
    assert (both.num_draft_tokens, both.num_accepted_tokens, both.num_relaxed_tokens) == (18, 12, 6)
    assert both.sources == {"pool": SourceCounts(16, 9), "context": SourceCounts(1, 1)}


def test_the_price_of_several_workers_is_the_mean_over_their_sequences():
    def priced(price, num_running):
        return replace(NO_PROGRESS, price=price, num_running=num_running, num_decoded_tokens=10)

    both = add_progress(priced(0.2, 30), priced(0.6, 10))
    assert (both.price, both.num_running, both.num_decoded_tokens) == (pytest.approx(0.3), 40, 20)
    assert add_progress(NO_PROGRESS, priced(0.6, 0)).price == 0.6
    assert add_progress(NO_PROGRESS, NO_PROGRESS).price is None


def test_a_lost_worker_runs_nothing_any_more(clock):
    tracker = ProgressTracker(100, 0, num_workers=2, clock=clock)
    tracker.worker_ready(0)
    tracker.update(0, replace(worker_progress(1, 10, 5), num_running=8, price=0.4, drafter_sec=2.0))
    tracker.worker_lost(0)
    totals = tracker.snapshot().totals
    assert (totals.num_running, totals.price, totals.drafter_sec) == (0, None, 2.0)


def test_rows_of_running_shards_count_once_when_they_are_committed(clock):
    tracker = ProgressTracker(num_rows_total=100, num_rows_before=20, num_workers=1, clock=clock)
    tracker.worker_ready(0)
    tracker.update(0, worker_progress(7, 70, 35))
    assert tracker.snapshot().num_rows_done == 27
    tracker.shard_done(0, num_rows=6, num_failed=2)
    assert tracker.snapshot().num_rows_done == 20 + 8 + 1
    tracker.update(0, worker_progress(200, 2000, 1000))
    assert tracker.snapshot().num_rows_done == 100  # never more than planned
    assert tracker.snapshot().num_rows_failed == 2


def test_a_lost_worker_keeps_its_tokens_but_not_its_unfinished_rows(clock):
    tracker = ProgressTracker(100, 0, num_workers=2, clock=clock)
    tracker.worker_ready(0)
    tracker.worker_ready(1)
    tracker.update(0, worker_progress(9, 90, 45))
    tracker.update(1, worker_progress(5, 50, 25))
    tracker.shard_done(0, num_rows=4, num_failed=0)
    tracker.worker_lost(0)
    tracker.update(0, worker_progress(10, 100, 50))  # a late answer of the dead
    lost = tracker.snapshot()
    assert (lost.num_rows_done, lost.totals.num_output_tokens, lost.num_workers_ready) == (4 + 5, 140, 1)
    tracker.worker_ready(2)
    tracker.update(2, worker_progress(1, 10, 5))
    assert tracker.snapshot().totals.num_output_tokens == 150


def test_an_older_answer_does_not_turn_progress_back(clock):
    tracker = ProgressTracker(10, 0, 1, clock=clock)
    tracker.worker_ready(0)
    tracker.update(0, worker_progress(4, 40, 20))
    tracker.update(0, worker_progress(3, 30, 15))
    assert tracker.snapshot().totals.num_output_tokens == 40


def test_a_worker_that_never_started_can_be_lost(clock):
    tracker = ProgressTracker(10, 0, 1, clock=clock)
    tracker.worker_lost(0)
    assert tracker.snapshot().totals == NO_PROGRESS


def test_speed_is_that_of_the_last_half_minute_and_eta_that_of_the_session(clock):
    tracker = ProgressTracker(100, 10, 1, clock=clock)
    clock.now += 60  # loading counts for neither
    tracker.worker_ready(0)
    assert tracker.snapshot().tokens_per_sec is None
    for second in range(1, 61):
        clock.now += 1
        fast = max(0, second - 30)
        tracker.update(0, worker_progress(fast, 100 * fast, 50 * fast))
        snapshot = tracker.snapshot()
    assert snapshot.tokens_per_sec == pytest.approx(100)
    assert snapshot.acceptance_length == pytest.approx(2.0)
    assert snapshot.num_rows_done == 40 and snapshot.eta_sec == pytest.approx(60 * 60 / 30)
    assert (snapshot.decode_sec, snapshot.elapsed_sec) == (60, 120)


def test_lines_say_what_happens(clock):
    tracker = ProgressTracker(40, 10, 2, clock=clock)
    clock.now += 65
    assert plain_line(tracker.snapshot(), "toy") == "starting 2 workers: loading model toy (1:05)"
    tracker.worker_ready(0)
    assert plain_line(tracker.snapshot(), "toy") == "10/40 rows (25%), - tokens/s, - tokens/step, ETA -"
    clock.now += 10
    tracker.update(0, worker_progress(5, 50, 40))
    tracker.shard_done(0, 4, 1)
    assert plain_line(tracker.snapshot(), "toy") == (
        "16/40 rows (40%), 1 failed, 5 tokens/s, 1.25 tokens/step, ETA 0:40"
    )


def test_plain_progress_logs_at_once_then_every_interval_and_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO)
    tracker = ProgressTracker(40, 0, 1, clock=clock)
    with PlainView("toy", interval_sec=30, clock=clock) as view:
        for _ in range(65):
            view.update(tracker.snapshot())
            clock.now += 1
        tracker.worker_ready(0)
        tracker.shard_done(0, 40, 0)
        view.update(tracker.snapshot())
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["starting", "starting", "starting", "40/40"]


def test_the_last_state_is_not_logged_twice(clock, caplog):
    caplog.set_level(logging.INFO)
    with PlainView("toy", clock=clock) as view:
        view.update(ProgressTracker(40, 0, 1, clock=clock).snapshot())
    assert len(caplog.records) == 1


def test_a_terminal_gets_a_bar_and_a_pipe_lines(clock):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    tracker = ProgressTracker(40, 0, 1, clock=clock)
    with progress_view(console, "toy[7b]") as view:
        view.update(tracker.snapshot())
        tracker.worker_ready(0)
        clock.now += 10
        tracker.update(0, worker_progress(20, 100, 40))
        view.update(tracker.snapshot())
    assert "20/40" in screen.getvalue() and "2.50 tokens/step, ETA 0:10" in screen.getvalue()
    assert isinstance(progress_view(Console(file=io.StringIO()), "toy"), PlainView)


def test_a_bar_begins_with_the_first_snapshot_and_shows_elapsed_time(clock):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with progress_view(console, "toy") as view:
        assert screen.getvalue() == ""  # Ray is started now, which is a stage of its own
        view.update(ProgressTracker(40, 0, 1, clock=clock).snapshot())
        assert "0/?" not in screen.getvalue()
        assert "0/40 0:00:00 starting 1 worker: loading model toy" in screen.getvalue()


def test_speed_counts_the_tokens_of_unfinished_texts(clock):
    tracker = ProgressTracker(8, 0, 1, clock=clock)
    tracker.worker_ready(0)
    tracker.snapshot()
    clock.now += 10
    tracker.update(0, replace(worker_progress(0), num_decoded_tokens=500))
    assert tracker.snapshot().tokens_per_sec == pytest.approx(50)


def test_durations():
    assert [duration(value) for value in (None, 0.4, 59.6, 3725)] == ["-", "0:00", "1:00", "1:02:05"]
