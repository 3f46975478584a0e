import pytest

from pipeline.benchmark.engine_process import Window
from pipeline.benchmark.rows import bench_rows
from pipeline.generate.engine import WrittenText


def text(num_tokens=100, num_steps=50, loops=False):
    token_ids = [1, 2] * (num_tokens // 2) if loops else list(range(num_tokens))
    return WrittenText("k", "", token_ids, "stop", 60, num_tokens - num_steps, 0, num_steps)


def window(seconds, texts, num_steps=100):
    return Window(
        1000, seconds, num_steps, mean_concurrency=3.9, drafter_sec=0.1, prefill_sec=0.05, texts=texts
    )


def rows(**changes):
    plain = {"a": text(num_steps=100), "b": text(num_steps=100, loops=True)}
    drafted = {"a": text(num_steps=50), "b": text(num_steps=10, loops=True)}
    windows = {
        "none": [window(10.0, plain), window(8.0, plain)],
        "laser-strict": [window(5.0, drafted), window(2.0, drafted)],
    }
    return {row.method: row for row in bench_rows("user", 4, windows | changes)}


def test_ratios_are_those_of_the_same_round():
    row = rows()["laser-strict"]
    assert (row.ratio_low, row.ratio_to_none, row.ratio_high) == (2.0, 3.0, 4.0)
    assert row.tokens_per_sec == pytest.approx((1000 / 5 + 1000 / 2) / 2)
    assert rows()["none"].ratio_to_none == 1.0


def test_the_time_of_the_prompts_is_the_same_for_all_and_lowers_the_ratio():
    row = rows()["laser-strict"]
    # 100 tokens a text: 1 s against 0.5 s in the first round, 0.8 against 0.2 in the second; 0.05 s to read
    assert row.ratio_with_prefill == pytest.approx((1.05 / 0.55 + 0.85 / 0.25) / 2)


def test_looping_texts_are_told_by_what_plain_decoding_wrote():
    row = rows()["laser-strict"]
    assert row.tokens_per_step == pytest.approx(200 / 60)
    assert row.tokens_per_step_without_loops == pytest.approx(100 / 50)
    assert row.looping_share > 0.4
    assert (row.num_texts_without_loops, row.num_texts) == (2, 4)
    # 3.0 for all texts, of which a step wrote 200 / 60 tokens
    assert row.ratio_without_loops == pytest.approx(3.0 * 2.0 / (200 / 60))


def test_a_text_that_loops_by_the_method_alone_counts_as_a_loop():
    plain = {"a": text(num_steps=100), "b": text(num_steps=100)}
    drafted = {"a": text(num_steps=50), "b": text(num_steps=10, loops=True)}
    found = rows(**{
        "none": [window(10.0, plain), window(8.0, plain)],
        "laser-relaxed": [window(5.0, drafted), window(2.0, drafted)],
    })  # fmt: skip
    assert found["none"].num_texts_without_loops == 4
    assert found["laser-relaxed"].num_texts_without_loops == 2
    assert found["laser-relaxed"].tokens_per_step_without_loops == pytest.approx(2.0)


def test_the_concurrency_reached_is_the_mean_of_all_steps():
    texts = {"a": text()}
    windows = [
        Window(1000, 1.0, 300, 4.0, drafter_sec=0.1, prefill_sec=0.05, texts=texts),
        Window(1000, 1.0, 100, 3.0, drafter_sec=0.1, prefill_sec=0.05, texts=texts),
    ]
    assert rows(none=windows)["none"].mean_concurrency == pytest.approx(3.75)


def test_where_every_text_loops_there_is_no_figure_without_loops():
    looping = {"a": text(num_steps=100, loops=True)}
    found = rows(**{"none": [window(10.0, looping)], "laser-strict": [window(5.0, looping)]})
    row = found["laser-strict"]
    assert (row.num_texts_without_loops, row.tokens_per_step_without_loops, row.ratio_without_loops) == (
        0,
        0,
        0,
    )
