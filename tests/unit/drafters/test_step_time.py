"""The cost of a step, learned under noise, beside prompts, and on a machine that changes its speed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafters.step_time import StepTimeModel
from tests.unit.drafters.machines import (
    BASE,
    MARGINAL,
    LaserLoop,
    Machine,
    best_by_hand,
    line,
    spread_chances,
)


def test_the_line_is_recovered_under_noise():
    machine = Machine()
    for num_tokens in np.random.default_rng(1).integers(1, 128, 400):
        machine.step(int(num_tokens))
    for num_tokens in (8, 64):
        base, marginal = line(machine.model, num_tokens)
        assert base == pytest.approx(BASE, rel=0.3)
        assert marginal == pytest.approx(MARGINAL, rel=0.2)
        assert base + marginal * num_tokens == pytest.approx(BASE + MARGINAL * num_tokens, rel=0.05)


def test_a_large_batch_may_cost_another_slope_than_a_small_one():
    """A GPU: flat while its memory is the bound, then linear."""
    model = StepTimeModel()
    for _ in range(30):
        for num_tokens in (1, 2, 4, 8, 512, 700, 1000, 1400, 2000):
            model.observe(num_tokens, 10e-3 if num_tokens < 100 else 10e-3 + 40e-6 * (num_tokens - 256))
    (base, marginal), (base_large, marginal_large) = line(model, 4), line(model, 1400)
    assert best_by_hand(spread_chances(4), 4, base, marginal).price < 0.05
    assert marginal_large == pytest.approx(40e-6, rel=0.3)
    assert base_large + 1400 * marginal_large == pytest.approx(10e-3 + 40e-6 * 1144, rel=0.1)


def test_before_anything_is_known_the_prior_decides():
    base, marginal = line(StepTimeModel(), 1.0)
    assert base > 0 and marginal > 0
    model = StepTimeModel()
    for _ in range(20):
        model.observe(16, 40e-3)
    base, marginal = line(model, 16)
    assert base + 16 * marginal == pytest.approx(40e-3, rel=0.01)
    assert 0 < marginal < 40e-3 / 16


def test_an_interrupted_step_hardly_counts():
    machine, disturbed = Machine(), Machine()
    for step in range(200):
        for each in (machine, disturbed):
            each.step(10 + step % 40)
        if step in (60, 120, 180):
            disturbed.model.observe(10 + step % 40, 5.0)
    (base, marginal), (base_too, marginal_too) = line(machine.model, 30), line(disturbed.model, 30)
    assert base_too + 30 * marginal_too == pytest.approx(base + 30 * marginal, rel=0.15)


def test_a_machine_that_becomes_slower_is_followed():
    machine = Machine()
    for step in range(200):
        machine.step(1 + step % 64)
    machine.base, machine.marginal = 2 * BASE, 2 * MARGINAL
    for step in range(1000):
        machine.step(1 + step % 64)
    base, marginal = line(machine.model, 32)
    assert base + 32 * marginal == pytest.approx(2 * (BASE + 32 * MARGINAL), rel=0.1)


@pytest.mark.parametrize(("num_tokens", "seconds"), [(0, 1.0), (-3, 1.0), (5, 0.0), (5, -1.0)])
def test_what_cannot_be_a_step_is_ignored(num_tokens, seconds):
    model = StepTimeModel()
    untouched = line(model, 10)
    model.observe(num_tokens, seconds)
    assert line(model, 10) == untouched


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 10.0)), max_size=60), st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_base_and_slope_are_always_positive_and_finite(steps, num_tokens):
    model = StepTimeModel()
    for step in steps:
        model.observe(*step)
    base, marginal = line(model, num_tokens)
    assert np.isfinite([base, marginal]).all() and base > 0 and marginal > 0


# -- with LASER's rule in the loop -------------------------------------------------------------------------

SLOW_FOR_A_WHILE = [1.0] * 200 + [2.0] * 200 + [1.0] * 500
LITTLE_BY_LITTLE = [1 + 0.2 * np.sin(2 * np.pi * step / 250) for step in range(900)]


@pytest.mark.parametrize("speeds", [SLOW_FOR_A_WHILE, LITTLE_BY_LITTLE], ids=["slow for a while", "waves"])
@pytest.mark.parametrize("num_rows", [1, 4, 16, 64])
@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_a_machine_that_changes_its_speed_leaves_no_wrong_price_behind(num_rows, speeds, noise):
    """Batches of one size only: what bins of other sizes remember is from another time."""
    loop = LaserLoop(num_rows, BASE, MARGINAL, noise)
    gain, best = np.mean([loop.step(slower) for slower in speeds][420:], axis=0)
    assert gain > 0.97 * best
    assert gain > 0.99


@pytest.mark.parametrize("at", [0, 1, 5, 20, 40])
@pytest.mark.parametrize("num_rows", [4, 32, 64])
def test_a_step_that_compiled_something_leaves_no_wrong_price_behind(num_rows, at):
    """Seconds instead of milliseconds, in the first batch of its size."""
    loop = LaserLoop(num_rows, BASE, MARGINAL)
    gain, best = np.mean([loop.step(80.0 if step == at else 1.0) for step in range(400)][100:], axis=0)
    assert gain > 0.97 * best


@pytest.mark.parametrize("prompt_tokens", [100, 400, 2000])
@pytest.mark.parametrize(("num_rows", "base", "marginal"), [
    (64, 10e-3, 20e-6), (256, 10e-3, 20e-6), (1024, 10e-3, 20e-6), (64, BASE, MARGINAL),
])  # fmt: skip
def test_prompts_that_stream_in_leave_the_price_of_a_draft(num_rows, base, marginal, prompt_tokens):
    """Each text of 250 tokens is followed by the next prompt, which shares its step."""
    loop = LaserLoop(num_rows, base, marginal, prompt_tokens=prompt_tokens)
    gain, best = np.mean([loop.step() for _ in range(500)][100:], axis=0)
    assert gain > 0.95 * best


def test_what_a_token_of_a_prompt_costs_is_told_from_what_a_draft_costs():
    model, random = StepTimeModel(), np.random.default_rng(0)
    for _ in range(300):
        num_tokens, num_prompt_tokens = random.integers(40, 80), random.integers(0, 300)
        model.observe(num_tokens, 20e-3 + 1e-4 * num_tokens + 3e-5 * num_prompt_tokens, num_prompt_tokens)
    costs = model.costs(64)
    assert costs.marginal == pytest.approx(1e-4, rel=0.2) and costs.prompt == pytest.approx(3e-5, rel=0.2)
    assert costs.base + 64 * costs.marginal == pytest.approx(20e-3 + 64e-4, rel=0.02)


def test_a_step_that_is_nearly_all_prompt_tells_nothing():
    model = StepTimeModel()
    model.observe(4, 1.0, num_prompt_tokens=4096)
    assert model.costs(4).certainty == 0.0
