from dataclasses import replace

import pytest

from pipeline.benchmark.rows import BenchRow
from pipeline.benchmark.verdicts import goal_of, verdicts

ROW = BenchRow(
    method="none", concurrency=4, kind="item", tokens_per_sec=100.0, ratio_to_none=1.0, ratio_low=1.0,
    ratio_high=1.0, ratio_with_prefill=1.0, tokens_per_step=1.0, drafted_per_step=0.0,
    drafter_ms_per_step=0.0, looping_share=0.05, tokens_per_step_without_loops=1.0, ms_per_step=40.0,
    num_rounds=2, num_texts=24, num_texts_without_loops=20, ratio_without_loops=1.0, mean_concurrency=4.0,
)  # fmt: skip
TEXTS = "Texts behind each figure: 24 at concurrency 4; 2 rounds."
AHEAD = (
    "By the medians LASER is ahead of every method measured in every cell, and no relaxed rule is behind "
    "strict."
)


def method(name, ratio, low=None, high=None, **changes):
    low, high = ratio if low is None else low, ratio if high is None else high
    return replace(ROW, method=name, ratio_to_none=ratio, ratio_low=low, ratio_high=high, **changes)


PEERS = [method("ngram", 1.1), method("suffix", 1.3)]
CLEAR = [ROW, *PEERS, method("laser-strict", 1.7), method("laser-relaxed", 2.0)]


def test_a_clear_comparison_says_so_and_how_many_texts_it_rests_on():
    goals = (
        "Goals met in every round: item, concurrency 4: laser-strict 1.70 (goal 1.6); "
        "item, concurrency 4: laser-relaxed 2.00 (goal 1.6)."
    )
    assert verdicts(CLEAR) == [TEXTS, AHEAD, goals]


def test_losses_are_named_one_by_one():
    lines = verdicts([*CLEAR[:4], method("laser-relaxed", 0.9)])
    assert lines[1:5] == [
        "item, concurrency 4: laser-relaxed 0.90 is behind none 1.00",
        "item, concurrency 4: laser-relaxed 0.90 is behind ngram 1.10",
        "item, concurrency 4: laser-relaxed 0.90 is behind suffix 1.30",
        "item, concurrency 4: laser-relaxed 0.90 is behind laser-strict 1.70",
    ]
    assert AHEAD not in lines


def test_a_peer_that_was_not_measured_is_named():
    assert verdicts([*CLEAR[:2], *CLEAR[3:]])[1] == "suffix was not measured."


def test_nothing_is_said_of_strict_where_it_was_not_measured():
    assert verdicts([*CLEAR[:3], CLEAR[4]])[1] == (
        "By the medians LASER is ahead of every method measured in every cell."
    )


def test_a_round_below_none_is_told_though_the_median_is_ahead():
    lines = verdicts([*CLEAR[:3], method("laser-strict", 1.4, low=0.97, high=1.5)])
    slower = (
        "item, concurrency 4: laser-strict: its lowest round, 0.97, was slower than decoding without drafts"
    )
    assert slower in lines and AHEAD in lines
    assert not any("its lowest round" in line for line in verdicts(CLEAR))


def test_spreads_that_overlap_are_told_of_peers_and_of_strict():
    rows = [
        ROW,
        method("suffix", 1.3, low=1.1, high=1.5),
        method("laser-strict", 1.45, low=1.4, high=1.9),
        method("laser-relaxed", 2.0, low=1.8, high=2.2),
    ]
    overlaps = [line for line in verdicts(rows) if "overlap" in line]
    strict, relaxed = "laser-strict 1.45 (1.40-1.90)", "laser-relaxed 2.00 (1.80-2.20)"
    assert overlaps == [
        f"item, concurrency 4: {strict} is ahead of suffix 1.30 (1.10-1.50) by its median, "
        "but their rounds overlap",
        f"item, concurrency 4: {relaxed} is ahead of {strict} by its median, but their rounds overlap",
    ]


def test_goals_are_met_in_every_round_or_by_the_median_or_missed():
    rows = [
        *CLEAR[:3],
        method("laser-strict", 1.5, low=1.4, high=1.7),
        method("laser-relaxed", 1.7, low=1.5, high=1.9),
        replace(method("laser-strict", 1.3, low=1.26), concurrency=16, mean_concurrency=16.0),
    ]
    assert [line for line in verdicts(rows) if line.startswith("Goals")] == [
        "Goals met in every round: item, concurrency 16: laser-strict 1.30 (goal 1.25).",
        "Goals met by the median, not in every round: item, concurrency 4: laser-relaxed 1.70 (goal 1.6).",
        "Goals missed: item, concurrency 4: laser-strict 1.50 (goal 1.6).",
    ]


@pytest.mark.parametrize(
    ("name", "concurrency", "goal"),
    [
        ("laser-strict", 1, 2.5), ("laser-relaxed", 1, 3.0), ("laser-guarded", 1, 3.0),
        ("laser-strict", 4, 1.6), ("laser-relaxed", 16, 1.25), ("laser-relaxed", 64, 1.1),
        ("laser-relaxed", 8, None),
    ],
)  # fmt: skip
def test_every_cell_has_the_goal_of_its_batch(name, concurrency, goal):
    assert goal_of(replace(ROW, method=name, concurrency=concurrency)) == goal


def test_a_batch_that_drained_is_told():
    drained = replace(CLEAR[4], mean_concurrency=3.4)
    line = "item, concurrency 4: laser-relaxed: its batch drained, 3.4 requests in flight in the mean"
    assert verdicts([*CLEAR[:4], drained])[-1] == line


def test_one_round_shows_no_spread():
    rows = [replace(row, num_rounds=1, num_texts=12) for row in CLEAR]
    assert verdicts(rows)[0] == (
        "Texts behind each figure: 12 at concurrency 4; one round, which shows no spread."
    )
