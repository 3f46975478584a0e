import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafters.budget import StepTimeModel, best_budget

BASE, MARGINAL = 25e-3, 1.2e-3  # a small model on two cores
NOISE = 0.05


class Machine:
    """Takes base + marginal x tokens seconds a step, with noise, and tells `model`."""

    def __init__(self, base=BASE, marginal=MARGINAL, noise=NOISE, seed=0):
        self.base, self.marginal, self.noise = base, marginal, noise
        self.random = np.random.default_rng(seed)
        self.model = StepTimeModel()

    def step(self, num_tokens):
        seconds = self.base + self.marginal * num_tokens
        self.model.observe(num_tokens, seconds * (1 + self.noise * self.random.standard_normal()))

    def draft(self, num_rows, chances, last_drafts):
        """One step of the rule: how many drafts it takes, at which price."""
        budget = best_budget(chances, num_rows, *self.model.line(num_rows + last_drafts))
        self.step(num_rows + budget.num_drafts)
        return budget


def spread_chances(num_rows, depth=12, rate=0.75, random=None):
    """Rows of unequal luck whose chances fall along the draft."""
    luck = np.linspace(0.3, 0.98, num_rows) if random is None else random.uniform(0.05, 0.98, num_rows)
    return (luck[:, None] * rate ** np.arange(depth)).ravel()


def best_by_hand(chances, num_rows, base=BASE, marginal=MARGINAL):
    return best_budget(chances, num_rows, base, marginal)


# -- the time of a step ------------------------------------------------------------------------------------


def test_the_line_is_recovered_under_noise():
    machine = Machine()
    for num_tokens in np.random.default_rng(1).integers(1, 128, 400):
        machine.step(int(num_tokens))
    for num_tokens in (8, 64):
        base, marginal = machine.model.line(num_tokens)
        assert base == pytest.approx(BASE, rel=0.3)
        assert marginal == pytest.approx(MARGINAL, rel=0.2)
        assert base + marginal * num_tokens == pytest.approx(BASE + MARGINAL * num_tokens, rel=0.05)


def test_a_large_batch_may_cost_another_slope_than_a_small_one():
    """A GPU: flat while its memory is the bound, then linear."""
    model = StepTimeModel()
    for _ in range(30):
        for num_tokens in (1, 2, 4, 8, 512, 700, 1000, 1400, 2000):
            model.observe(num_tokens, 10e-3 if num_tokens < 100 else 10e-3 + 40e-6 * (num_tokens - 256))
    (base, marginal), (base_large, marginal_large) = model.line(4), model.line(1400)
    assert best_by_hand(spread_chances(4), 4, base, marginal).price < 0.05
    assert marginal_large == pytest.approx(40e-6, rel=0.3)
    assert base_large + 1400 * marginal_large == pytest.approx(10e-3 + 40e-6 * 1144, rel=0.1)


def test_before_anything_is_known_the_prior_decides():
    base, marginal = StepTimeModel().line(1.0)
    assert base > 0 and marginal > 0
    model = StepTimeModel()
    for _ in range(20):
        model.observe(16, 40e-3)
    base, marginal = model.line(16)
    assert base + 16 * marginal == pytest.approx(40e-3, rel=0.01)
    assert 0 < marginal < 40e-3 / 16


def test_an_interrupted_step_hardly_counts():
    machine, disturbed = Machine(), Machine()
    for step in range(200):
        for each in (machine, disturbed):
            each.step(10 + step % 40)
        if step in (60, 120, 180):
            disturbed.model.observe(10 + step % 40, 5.0)
    (base, marginal), (base_too, marginal_too) = machine.model.line(30), disturbed.model.line(30)
    assert base_too + 30 * marginal_too == pytest.approx(base + 30 * marginal, rel=0.15)


def test_a_machine_that_becomes_slower_is_followed():
    machine = Machine()
    for step in range(200):
        machine.step(1 + step % 64)
    machine.base, machine.marginal = 2 * BASE, 2 * MARGINAL
    for step in range(1000):
        machine.step(1 + step % 64)
    base, marginal = machine.model.line(32)
    assert base + 32 * marginal == pytest.approx(2 * (BASE + 32 * MARGINAL), rel=0.1)


@pytest.mark.parametrize(("num_tokens", "seconds"), [(0, 1.0), (-3, 1.0), (5, 0.0), (5, -1.0)])
def test_what_cannot_be_a_step_is_ignored(num_tokens, seconds):
    model = StepTimeModel()
    untouched = model.line(10)
    model.observe(num_tokens, seconds)
    assert model.line(10) == untouched


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 10.0)), max_size=60), st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_base_and_slope_are_always_positive_and_finite(steps, num_tokens):
    model = StepTimeModel()
    for step in steps:
        model.observe(*step)
    base, marginal = model.line(num_tokens)
    assert np.isfinite([base, marginal]).all() and base > 0 and marginal > 0


# -- the best drafts ---------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.01, 1.0), max_size=9),
    st.integers(1, 40),
    st.floats(1e-4, 1.0),
    st.floats(1e-6, 0.1),
)
@settings(max_examples=200, deadline=None)
def test_no_set_of_drafts_yields_more(chances, num_rows, base, marginal):
    budget = best_budget(np.array(chances), num_rows, base, marginal)

    def tokens_per_second(chosen):
        return (num_rows + sum(chosen)) / (base + marginal * (num_rows + len(chosen)))

    best = max(
        tokens_per_second(chosen)
        for size in range(len(chances) + 1)
        for chosen in itertools.combinations(chances, size)
    )
    ordered = sorted(chances, reverse=True)
    assert tokens_per_second(ordered[: budget.num_drafts]) == pytest.approx(best)
    assert all(chance >= budget.price * (1 - 1e-9) for chance in ordered[: budget.num_drafts])
    assert all(
        chance <= budget.price * (1 + 1e-9) or budget.price == 1.0 for chance in ordered[budget.num_drafts :]
    )


def test_alone_drafts_are_long_and_in_a_saturated_batch_rare():
    alone = best_by_hand(spread_chances(1), 1)
    assert alone.price < 0.15
    saturated = best_by_hand(spread_chances(64), 64, base=2e-3)
    assert saturated.price > 0.85
    assert saturated.num_drafts < 0.05 * 64 * 12
    memory_bound = best_by_hand(spread_chances(64), 64, base=30e-3, marginal=2e-6)
    assert memory_bound.price < 0.05


def test_without_chances_there_is_nothing_to_draft():
    budget = best_budget(np.zeros(0), 4, BASE, MARGINAL)
    assert budget.num_drafts == 0
    assert 0 < budget.price <= 1


# -- the loop ----------------------------------------------------------------------------------------------


def run(machine, num_rows, steps, last=0):
    """(budget, its expected tokens per second over the best possible, over those without drafts) by step."""
    taken = []
    for _ in range(steps):
        chances = spread_chances(num_rows, random=machine.random)
        budget = machine.draft(num_rows, chances, last)
        last = budget.num_drafts
        ordered = np.concatenate(([0.0], np.cumsum(np.sort(chances)[::-1])))
        num_tokens = num_rows + np.arange(len(ordered))
        yields = (num_rows + ordered) / (machine.base + machine.marginal * num_tokens)
        taken.append((budget, yields[last] / yields.max(), yields[last] / yields[0]))
    return taken


def test_the_price_follows_when_the_batch_fills_and_drains():
    machine = Machine()
    for num_rows in (1, 64, 1, 16):
        settled = run(machine, num_rows, 48)[-8:]
        wanted = best_by_hand(spread_chances(num_rows), num_rows)
        assert np.mean([budget.price for budget, _, _ in settled]) == pytest.approx(wanted.price, abs=0.15)
        assert np.mean([share for _, share, _ in settled]) > 0.95


@pytest.mark.parametrize("num_rows", [4, 16, 64])
def test_it_never_swings_between_all_and_nothing(num_rows):
    settled = run(Machine(), num_rows, 300)[60:]
    prices = np.array([budget.price for budget, _, _ in settled])
    assert np.abs(np.diff(prices)).max() < 0.25
    assert prices.std() < 0.1
    assert all(0 < budget.num_drafts < 12 * num_rows for budget, _, _ in settled)
    assert np.mean([share for _, share, _ in settled]) > 0.97


@pytest.mark.parametrize(("base", "marginal"), [(1e-3, 1e-3), (25e-3, 1.2e-3), (30e-3, 20e-6)])
@pytest.mark.parametrize("num_rows", [1, 32])
def test_drafts_cost_no_more_than_they_bring(base, marginal, num_rows):
    settled = run(Machine(base, marginal), num_rows, 200)[60:]
    assert np.mean([gain for _, _, gain in settled]) >= 0.99


def test_alike_steps_leave_the_prior_in_charge_and_one_other_step_ends_that():
    machine = Machine(base=1e-3, marginal=1e-3)
    for _ in range(40):
        machine.step(48)
    assert machine.model.certainty(48) < 0.1
    for _ in range(2):
        machine.step(16)
    assert machine.model.certainty(48) > 0.6
    assert machine.model.line(48)[1] == pytest.approx(1e-3, rel=0.35)
