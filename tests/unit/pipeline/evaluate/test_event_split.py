"""Interactions split in time, and what CTR models see of each."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluate.split import TEST, TRAIN, VALIDATION, choose_cutoff, most_active, split_events
from pipeline.evaluation_settings import EvaluationSettings
from tests.evaluation import DAILY, IDS, START, interactions
from tests.generation import run_settings


def test_nothing_at_or_after_the_cutoff_is_trained_on():
    cutoff = START + timedelta(days=30)
    events = split_events(DAILY, IDS, cutoff, EvaluationSettings())
    days = (events.times - events.times[0]) // 86_400_000_000
    assert days[events.of_part(TEST)].tolist() == list(range(30, 40))
    assert days[events.of_part(VALIDATION)].tolist() == [27, 28, 29]
    assert days[events.of_part(TRAIN)].tolist() == list(range(27))


def test_labels_are_ratings_above_the_bound():
    events = split_events(DAILY, IDS, START + timedelta(days=30), EvaluationSettings())
    assert events.labels[:5].tolist() == [0, 0, 0, 1, 1]


def test_interactions_of_one_moment_are_not_parted():
    rows = [("u0", f"i{n}", 1 + 4 * (n % 2), 8 if 8 <= n < 14 else n) for n in range(30)]
    ids = {"user": pa.array(["u0"]), "item": pa.array([f"i{n}" for n in range(30)])}
    half = EvaluationSettings(validation_fraction=0.5)
    events = split_events(interactions(rows), ids, START + timedelta(days=20), half)
    assert len(events.of_part(TRAIN)) == 8  # half of the 20 would part day 8
    assert len(events.of_part(VALIDATION)) == 12


def test_the_default_cutoff_leaves_the_test_fraction():
    settings = run_settings()
    cutoff = choose_cutoff(DAILY, settings)
    later = sum(moment >= cutoff for moment in DAILY["timestamp"].to_pylist())
    assert later == 8  # 20 % of 40


def test_a_given_cutoff_decides():
    given = START + timedelta(days=3)
    assert choose_cutoff(DAILY, run_settings().model_copy(update={"history_cutoff": given})) == given


def test_the_most_active_are_chosen_and_of_equals_the_first_id():
    table = interactions([("a", "x", 5, 0), ("b", "x", 5, 1), ("b", "y", 5, 2), ("c", "z", 1, 3)])
    chosen = most_active(table, 2, START + timedelta(days=9))
    assert chosen["user"].to_pylist() == ["b", "a"]
    assert chosen["item"].to_pylist() == ["x", "y"]
    assert len(most_active(table, "all", START + timedelta(days=9))["user"]) == 3


def test_activity_after_the_cutoff_chooses_nobody():
    before = [("a", "x", 5, 0), ("a", "y", 5, 1), ("b", "y", 5, 2), ("c", "y", 5, 3)]
    after = [(user, "y", 1, 20 + day) for day in range(9) for user in ("c", "new1", "new2")]
    quiet, busy = (
        most_active(interactions(before + later), 4, START + timedelta(days=10))
        for later in (after[:3], after)
    )
    assert quiet == busy
    assert quiet["user"].to_pylist()[:2] == ["a", "b"]
    assert len({"new1", "new2"} & set(quiet["user"].to_pylist())) == 2  # two fifths of four, rounded


def test_prompts_end_where_the_validation_begins():
    events = split_events(DAILY, IDS, START + timedelta(days=30), EvaluationSettings())
    assert events.prompt_cutoff == START + timedelta(days=27)
    first = events.times[np.concatenate([events.of_part(VALIDATION), events.of_part(TEST)])].min()
    assert (events.prompt_cutoff - START) == timedelta(microseconds=int(first - events.times[0]))


def test_one_kind_of_label_is_refused_by_name():
    table = interactions([("u0", "i0", 5, day) for day in range(10)])
    with pytest.raises(ConfigError, match="limit: the 7 training interactions"):
        split_events(table, IDS, START + timedelta(days=8), EvaluationSettings())


def test_implicit_feedback_is_refused():
    table = interactions([("u0", "i0", None, day) for day in range(10)])
    with pytest.raises(ConfigError, match="no ratings"):
        split_events(table, IDS, START + timedelta(days=8), EvaluationSettings())


def test_warm_tests_are_of_users_that_were_trained():
    rows = [("u0", f"i{n % 4}", 1 + 4 * (n % 3 > 0), n) for n in range(19)] + [("u2", "i3", 5, 19)]
    rows += [("u1", "i0", 5, 21), ("u1", "i1", 1, 22), ("u0", "i1", 1, 23), ("u2", "i1", 1, 24)]
    events = split_events(interactions(rows), IDS, START + timedelta(days=20), EvaluationSettings())
    assert events.warm.tolist() == [22]  # u2 came with the validation, u1 with the test
    assert np.array_equal(events.of_part(TEST), [20, 21, 22, 23])
