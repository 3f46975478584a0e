import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafters.budget import best_budget
from tests.unit.drafters.machines import BASE, MARGINAL, Machine, best_by_hand, spread_chances

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
    assert machine.model.costs(48).certainty < 0.1
    for _ in range(2):
        machine.step(16)
    assert machine.model.costs(48).certainty > 0.6
    assert machine.model.costs(48).marginal == pytest.approx(1e-3, rel=0.35)
