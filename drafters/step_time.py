"""What a decoding step costs, learned online from the steps themselves."""

from collections import deque
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

REACH_OCTAVES = 2.0  # bins further away count less
PRIOR_BASE_TOKENS = 32.0
MAX_FIRST_RATIO = 3.0  # slower than most by this, one of the first steps was not of its tokens alone
MIN_NOISE = 0.02  # standard deviation of a step's seconds, as a share of their mean


class StepCosts(NamedTuple):
    """Seconds of steps near a batch size: a base, more for each token, more for each token of a prompt.

    All but `prompt`, which may be zero, are positive. `certainty` is the share of the evidence, not of the
    prior, in `marginal`; 0 to 1.
    """

    base: float
    marginal: float
    prompt: float
    certainty: float


class StepTimeModel:
    """Seconds of a decoding step: a base, so much for each token, so much for each token of a prompt.

    Steps are gathered in bins of token counts, a bin remembering recent means and covariances of tokens,
    prompt tokens and seconds; a weighted Bayesian plane through the bins near the batch in question gives
    the costs there. Bins, unlike a recursive fit, do not forget what a batch of another size costs while
    such batches do not occur. A machine that becomes slower or faster does so for batches of every size: a
    part of what the last few steps had in common, the median of their surprises, moves all bins, so that a
    bin of now and one of long ago do not make a slope between them. A step that is much slower than those
    around it was interrupted, and counts little; of the first few, which may have compiled something, it is
    left out. While sizes are too alike for the noise, the prior decides: the cost of a step is that of its
    tokens and of `PRIOR_BASE_TOKENS` more.
    """

    BINS_PER_OCTAVE = 3
    NUM_BINS = 60  # up to 2**20 tokens
    MEMORY_STEPS = 32.0  # a bin follows a change of the machine's costs within about as many steps
    SURPRISES = 5  # steps whose median tells how much slower or faster the machine is now
    MAX_SURPRISE = 3.0
    LEVEL_RATE = 0.2  # the part of that median, as a ratio, that moves all bins with each step
    OUTLIER = 1.5  # a step this many times as long as expected was interrupted by something else
    STEPS_AWAITED = 8  # what the first of them have in common tells which of them were interrupted
    MAX_PROMPT_SHARE = 8.0  # prompt tokens for each other one; beyond, a step tells nothing of the others

    def __init__(self) -> None:
        self._count = np.zeros(self.NUM_BINS)
        self._mean = np.zeros((self.NUM_BINS, 3))  # tokens, prompt tokens, seconds
        self._covariance = np.zeros((self.NUM_BINS, 3, 3))
        self._surprises: deque[float] = deque(maxlen=self.SURPRISES)
        self._first: list[tuple[int, int, float]] = []  # until there are enough: tokens, of prompts, seconds

    @classmethod
    def compile(cls) -> None:
        """Compile the native code now rather than in a step, which would take seconds the first time."""
        model = cls()
        for _ in range(cls.STEPS_AWAITED):
            model.observe(1, 1.0)
        model.costs(1.0)

    def observe(self, num_tokens: int, seconds: float, num_prompt_tokens: int = 0) -> None:
        """Note that a step over `num_tokens`, and over `num_prompt_tokens` of prompts, took `seconds`."""
        if num_tokens < 1 or seconds <= 0.0 or num_prompt_tokens > self.MAX_PROMPT_SHARE * num_tokens:
            return
        if self._count.any():
            seconds = self._without_interruption(num_tokens, seconds, num_prompt_tokens)
            self._add(num_tokens, num_prompt_tokens, seconds)
            return
        self._first.append((num_tokens, num_prompt_tokens, seconds))
        if len(self._first) == self.STEPS_AWAITED:
            for step in _without_slowest(self._first):
                self._add(*step)

    def _add(self, num_tokens: int, num_prompt_tokens: int, seconds: float) -> None:
        """Move the means and covariances of the step's bin."""
        bin_ = min(int(self.BINS_PER_OCTAVE * np.log2(num_tokens)), self.NUM_BINS - 1)
        self._count[bin_] = min(self._count[bin_] + 1.0, self.MEMORY_STEPS)
        rate = 1.0 / self._count[bin_]
        more = np.array([num_tokens, num_prompt_tokens, seconds]) - self._mean[bin_]
        self._mean[bin_] += rate * more
        self._covariance[bin_] = (1.0 - rate) * (self._covariance[bin_] + rate * np.outer(more, more))

    def _without_interruption(self, num_tokens: int, seconds: float, num_prompt_tokens: int) -> float:
        """`seconds`, or the most that the step can have taken by itself; moves all bins with the machine."""
        costs = self.costs(num_tokens)
        expected = costs.base + costs.marginal * num_tokens + costs.prompt * num_prompt_tokens
        self._surprises.append(seconds / expected)
        common = float(np.clip(np.median(self._surprises), 1.0 / self.MAX_SURPRISE, self.MAX_SURPRISE))
        moved = common**self.LEVEL_RATE
        self._mean[:, 2] *= moved
        self._covariance[:, 2, :] *= moved
        self._covariance[:, :, 2] *= moved
        return min(seconds, self.OUTLIER * max(common, 1.0) * expected)

    def costs(self, num_tokens: float) -> StepCosts:
        """What steps near `num_tokens` cost; those of the prior, in any unit, before enough is known."""
        if not self._count.any():
            return StepCosts(PRIOR_BASE_TOKENS, 1.0, 1.0, 0.0)
        return StepCosts(*_plane(self._count, self._mean, self._covariance, float(num_tokens)))


def _without_slowest(steps: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """The steps (tokens, tokens of prompts, seconds) that, by the prior, were not much slower than most."""
    ratios = np.array([seconds / (PRIOR_BASE_TOKENS + tokens + prompt) for tokens, prompt, seconds in steps])
    is_usual = ratios <= MAX_FIRST_RATIO * np.median(ratios)
    return [step for step, usual in zip(steps, is_usual, strict=True) if usual]


@nb.njit(cache=True)
def _plane(
    count: FloatArray, mean: FloatArray, covariance: FloatArray, num_tokens: float
) -> tuple[float, float, float, float]:
    """The fields of `StepCosts`: a ridge regression on the bins' moments, weighted by their distance."""
    weight = np.zeros(len(count))
    centre = np.zeros(3)
    for bin_ in range(len(count)):
        if count[bin_] > 0.0:
            distance = np.log2(mean[bin_, 0] / max(num_tokens, 1.0)) / REACH_OCTAVES
            weight[bin_] = count[bin_] * np.exp(-0.5 * distance**2) + 1e-9
            centre += weight[bin_] * mean[bin_]
    total = weight.sum()
    centre /= total
    within = np.zeros((3, 3))
    moments = np.zeros((3, 3))
    for bin_ in range(len(count)):
        if weight[bin_] > 0.0:
            away = mean[bin_] - centre
            within += weight[bin_] * covariance[bin_]
            moments += weight[bin_] * np.outer(away, away)
    moments += within
    prior = centre[2] / (centre[0] + centre[1] + PRIOR_BASE_TOKENS)
    marginal = prompt = prior
    certainty = 0.0
    for _ in range(2):  # the noise is what the slopes leave; it decides how far they are believed
        slopes = np.array([marginal, prompt, -1.0])
        noise = (slopes * (within @ slopes)).sum() / total + (MIN_NOISE * centre[2]) ** 2
        belief = noise / prior**2
        a, b, c = moments[0, 0] + belief, moments[0, 1], moments[1, 1] + belief
        first, second = moments[0, 2] + belief * prior, moments[1, 2] + belief * prior
        determinant = a * c - b * b
        marginal = (c * first - b * second) / determinant
        prompt = (a * second - b * first) / determinant
        certainty = 1.0 - belief * c / determinant
    prompt = min(max(prompt, 0.0), 0.9 * centre[2] / max(centre[1], 1.0))
    others = centre[2] - prompt * centre[1]
    marginal = min(max(marginal, 1e-3 * prior), 0.98 * others / centre[0])
    return others - marginal * centre[0], marginal, prompt, certainty
