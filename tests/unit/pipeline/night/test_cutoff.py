from datetime import UTC, datetime, timedelta

import pytest

from jobs.config import load_settings
from pipeline.night.cutoff import cutoff_values, with_cutoff_of_the_night
from pipeline.night.record import LAST_STEP, NightRecord
from pipeline.settings import RunSettings
from pipeline.storage.layout import DatasetLayout

BEFORE_MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
AFTER_MIDNIGHT = BEFORE_MIDNIGHT + timedelta(days=1)


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    return DatasetLayout.of(tmp_path, "toy")


def settings(cutoff: datetime, *words: str, word: str = "today", **changes) -> RunSettings:
    composed = load_settings("nightly", [f"history_cutoff={word}", *words])
    return composed.model_copy(update={"history_cutoff": cutoff, **changes})


def begun(layout, run_id: str = "2026-11-22") -> NightRecord:
    record = NightRecord("toy")
    record.begin(layout.run(run_id), **cutoff_values(settings(BEFORE_MIDNIGHT)))
    return record


def cutoff_of(settings: RunSettings, layout: DatasetLayout, hours: float = 1) -> datetime | None:
    now = datetime.now(UTC) + timedelta(hours=hours)
    return with_cutoff_of_the_night(settings, layout, now).history_cutoff


def test_a_night_that_goes_on_after_midnight_keeps_its_cutoff(layout):
    begun(layout)
    assert cutoff_of(settings(AFTER_MIDNIGHT), layout) == BEFORE_MIDNIGHT
    retried = settings(AFTER_MIDNIGHT, "retry_failed=true", "publish.max_gone_fraction=1")
    assert cutoff_of(retried, layout) == BEFORE_MIDNIGHT
    other_budget = settings(
        AFTER_MIDNIGHT, "quality.max_drift=0.5", "evaluation.num_seeds=3", "bench.num_repeats=2"
    )
    assert cutoff_of(other_budget, layout) == BEFORE_MIDNIGHT


def test_the_next_night_of_the_schedule_has_its_own(layout):
    begun(layout)
    assert cutoff_of(settings(AFTER_MIDNIGHT), layout, hours=24) == AFTER_MIDNIGHT
    asked_for = settings(AFTER_MIDNIGHT, run_id="2026-11-22")
    assert cutoff_of(asked_for, layout, hours=24) == BEFORE_MIDNIGHT


def test_nights_of_other_settings_or_words_or_that_are_done_do_not_count(layout):
    record = begun(layout)
    assert cutoff_of(settings(AFTER_MIDNIGHT, "limit=3"), layout) == AFTER_MIDNIGHT
    assert cutoff_of(settings(AFTER_MIDNIGHT, word="yesterday"), layout) == AFTER_MIDNIGHT
    record.finish()
    with record.step(LAST_STEP):
        pass
    assert cutoff_of(settings(AFTER_MIDNIGHT), layout) == AFTER_MIDNIGHT


def test_a_date_that_was_written_is_that_date(layout):
    begun(layout)
    fixed = load_settings("nightly", ["history_cutoff=2026-11-20"])
    assert cutoff_of(fixed, layout) == datetime(2026, 11, 20, tzinfo=UTC)
