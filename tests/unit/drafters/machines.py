"""Machines whose steps take base + marginal x tokens seconds, and drafts with chances to be accepted."""

import numpy as np

from drafters.budget import best_budget
from drafters.laser import LaserDrafter
from drafters.step_time import StepTimeModel

BASE, MARGINAL = 25e-3, 1.2e-3  # a small model on two cores
NOISE = 0.05


def line(model, num_tokens):
    """(base, marginal) seconds of steps near `num_tokens`."""
    costs = model.costs(num_tokens)
    return costs.base, costs.marginal


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
        budget = best_budget(chances, num_rows, *line(self.model, num_rows + last_drafts))
        self.step(num_rows + budget.num_drafts)
        return budget


def spread_chances(num_rows, depth=12, rate=0.75, random=None):
    """Rows of unequal luck whose chances fall along the draft."""
    luck = np.linspace(0.3, 0.98, num_rows) if random is None else random.uniform(0.05, 0.98, num_rows)
    return (luck[:, None] * rate ** np.arange(depth)).ravel()


def best_by_hand(chances, num_rows, base=BASE, marginal=MARGINAL):
    return best_budget(chances, num_rows, base, marginal)


class LaserLoop:
    """LASER's rule on a machine that verifies drafts, and reads a prompt for every text that ends."""

    TEXT_TOKENS = 250
    MAX_STEP_TOKENS = 8192
    PROMPT_SHARE = 0.8  # what a token of a prompt costs of one that is verified
    DEPTH = 16

    def __init__(self, num_rows, base, marginal, noise=NOISE, prompt_tokens=0):
        self.num_rows, self.base, self.marginal, self.noise = num_rows, base, marginal, noise
        self.prompt_tokens = prompt_tokens
        self.laser = LaserDrafter(1000, self.DEPTH)
        self.random = np.random.default_rng(0)
        self.num_drafts = 0
        self.waiting = num_rows * prompt_tokens

    def step(self, slower=1.0):
        """(tokens per second over those without drafts, the same of the best drafts), prompts included."""
        rows, laser = self.num_rows, self.laser
        chances = spread_chances(rows, self.DEPTH, random=self.random).reshape(rows, self.DEPTH)
        drafted = chances[np.cumsum(chances < laser.FLOOR_SHARE * laser.price, axis=1) <= 1]
        costs = laser.step_time.costs(rows + self.num_drafts)
        budget = best_budget(drafted, rows, costs.base, costs.marginal)
        laser.price = budget.price
        chosen = drafted[drafted >= laser._explored(budget, drafted, rows, costs.certainty)]
        self.num_drafts = len(chosen)
        self._pass_time(rows + chosen.sum(), slower)
        plain = self._tokens_per_sec(rows, 0)
        best = np.concatenate(([0.0], np.cumsum(np.sort(chances.ravel())[::-1])))
        most = self._tokens_per_sec(rows + best, np.arange(len(best))).max()
        return self._tokens_per_sec(rows + chosen.sum(), self.num_drafts) / plain, most / plain

    def _pass_time(self, num_written, slower):
        num_tokens = self.num_rows + self.num_drafts
        self.waiting += self.random.poisson(num_written / self.TEXT_TOKENS) * self.prompt_tokens
        read = min(self.waiting, self.MAX_STEP_TOKENS - num_tokens)
        self.waiting -= read
        seconds = slower * (self.base + self.marginal * (num_tokens + self.PROMPT_SHARE * read))
        noise = 1 + self.noise * self.random.standard_normal()
        self.laser.step_time.observe(num_tokens, seconds * noise, read)

    def _tokens_per_sec(self, num_written, num_drafts):
        """In the long run, the prompts of what was written included."""
        read = num_written / self.TEXT_TOKENS * self.prompt_tokens
        num_tokens = self.num_rows + num_drafts + self.PROMPT_SHARE * read
        return num_written / (self.base + self.marginal * num_tokens)
