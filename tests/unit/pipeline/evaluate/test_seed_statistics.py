"""Intervals and paired differences."""

import pytest

from pipeline.evaluate.results import Result
from pipeline.evaluate.statistics import ALL, Interval, compare, summarize_results


def test_the_interval_is_students():
    interval = Interval.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert interval.mean == 3.0
    assert interval.half_width == pytest.approx(2.776445 * 1.5811388 / 5**0.5, rel=1e-5)


def test_equal_values_are_a_point():
    assert Interval.of([0.5, 0.5, 0.5]).half_width == 0.0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0005, 0.0005, True),
        (-0.001, 0.001, True),
        (-0.0005, 0.002, None),
        (-0.002, 0.002, None),
        (0.0011, 0.002, False),
        (-0.003, -0.0011, False),
    ],
)
def test_a_bound_is_met_missed_or_undecided(low, high, expected):
    assert Interval((low + high) / 2, low, high).is_within(0.001) is expected


def results():
    """Seeds differ a lot, knowledge by 0.01 in every seed of one model and not at all in the other."""
    gains = {"din": 0.01, "deepfm": 0.0}
    return [
        Result(model, name, seed, 0.6 + 0.05 * seed + (gain if name == "greedy" else 0.0), 0.7, None, 3)
        for model, gain in gains.items()
        for name in ("none", "greedy")
        for seed in (2, 0, 1)
    ]


def test_differences_are_paired_by_seed():
    found = {one.model: one for one in compare(results(), ["none"])}
    assert found["din"].auc.mean == pytest.approx(0.01)
    assert found["din"].auc.half_width == pytest.approx(0.0, abs=1e-12)
    assert found["deepfm"].auc.mean == pytest.approx(0.0)
    assert found[ALL].auc.mean == pytest.approx(0.005)


def test_summaries_keep_the_order_of_results():
    summaries = summarize_results(results())
    assert [(one.model, one.knowledge) for one in summaries] == [
        ("din", "none"), ("din", "greedy"), ("deepfm", "none"), ("deepfm", "greedy")
    ]  # fmt: skip
    assert summaries[0].auc.mean == pytest.approx(0.65)
