from dataclasses import replace

import pytest

from pipeline.benchmark.present import bound_table, plain_table, plot, speed_table
from pipeline.benchmark.rows import BenchRow

ROW = BenchRow(
    method="none", concurrency=4, kind="item", tokens_per_sec=100.0, ratio_to_none=1.0, ratio_low=1.0,
    ratio_high=1.0, ratio_with_prefill=1.0, tokens_per_step=1.0, drafted_per_step=0.0,
    drafter_ms_per_step=0.0, looping_share=0.05, tokens_per_step_without_loops=1.0, ms_per_step=40.0,
    num_rounds=2, num_texts=12, num_texts_without_loops=10, ratio_without_loops=1.0, mean_concurrency=4.0,
)  # fmt: skip


def method(name, ratio, **changes):
    return replace(
        ROW, method=name, ratio_to_none=ratio, ratio_low=ratio - 0.1, ratio_high=ratio + 0.1, **changes
    )


ROWS = [
    ROW,
    method("ngram", 1.1),
    method("laser-strict", 1.4),
    method(
        "laser-relaxed", 1.6, tokens_per_step=2.4, ms_per_step=60.0, tokens_per_step_without_loops=2.2,
        num_texts_without_loops=9, ratio_without_loops=1.47,
    ),
]  # fmt: skip


def test_speed_is_a_ratio_with_its_spread():
    assert speed_table(ROWS).splitlines() == [
        "| kind | concurrency | none | ngram | laser-strict | laser-relaxed |",
        "|---|---:|---:|---:|---:|---:|",
        "| item | 4 | 100 tok/s | 1.10 (1.00-1.20) | 1.40 (1.30-1.50) | 1.60 (1.50-1.70) |",
    ]


def test_the_bound_is_tokens_per_step_over_its_cost():
    assert bound_table(ROWS).splitlines()[-1].endswith("| 2.40 / 1.50 (5%) |")


def test_texts_that_do_not_loop_have_figures_of_their_own_and_their_number():
    assert plain_table(ROWS).splitlines()[-1].endswith("| 2.20, about 1.47 (9 of 12) |")
    all_loop = [*ROWS[:3], replace(ROWS[3], num_texts_without_loops=0)]
    assert plain_table(all_loop).splitlines()[-1].endswith("| - (0 of 12) |")


@pytest.mark.parametrize("kinds", [("item",), ("item", "user")])
def test_the_plot_is_a_picture(tmp_path, kinds):
    rows = [replace(row, kind=kind, concurrency=c) for kind in kinds for c in (1, 4) for row in ROWS]
    plot(rows, tmp_path / "speed.png", "title")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
