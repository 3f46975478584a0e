"""How many draft tokens are worth verifying.

Verifying costs time for every token in the batch; a draft token brings one generated token with the chance
that it and all before it are accepted. The best set of drafts maximizes expected tokens per second,

    (num_rows + sum of chances) / step_seconds(num_rows + num_drafts),

a fractional program (Dinkelbach, Management Science 1967) whose optimum takes exactly the tokens whose
chance exceeds one threshold: the *price*, marginal seconds per token x tokens per second at the optimum.
At batch 1 the price is near zero and drafts are long; in a saturated batch it nears one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class StepTimeModel:
    """Seconds of a decoding step as a function of the tokens in its batch, learned online.

    Steps are gathered in bins of token counts, a bin remembering its recent mean and variance; a weighted
    Bayesian line through the bins near the batch in question gives base and marginal cost there. Bins,
    unlike a recursive fit, do not forget what a batch of another size costs while such batches do not
    occur. While sizes are too alike for the noise, the prior decides: the cost of a step is that of its
    tokens and of `PRIOR_BASE_TOKENS` more.
    """

    BINS_PER_OCTAVE = 3
    NUM_BINS = 60  # up to 2**20 tokens
    MEMORY_STEPS = 32.0  # a bin's mean follows a change of the machine within about as many steps
    OUTLIER = 3.0  # a step this many times its bin's mean was interrupted by something else
    REACH_OCTAVES = 2.0  # bins further away count less
    PRIOR_BASE_TOKENS = 32.0

    def __init__(self) -> None:
        self._count = np.zeros(self.NUM_BINS)
        self._tokens = np.zeros(self.NUM_BINS)
        self._sec = np.zeros(self.NUM_BINS)
        self._variance = np.zeros(self.NUM_BINS)  # of the seconds, within the bin

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Note that a step over `num_tokens` took `seconds`."""
        if num_tokens < 1 or seconds <= 0.0:
            return
        bin_ = min(int(self.BINS_PER_OCTAVE * np.log2(num_tokens)), self.NUM_BINS - 1)
        if self._count[bin_] >= 3:
            seconds = min(seconds, self.OUTLIER * self._sec[bin_])
        self._count[bin_] = min(self._count[bin_] + 1.0, self.MEMORY_STEPS)
        rate = 1.0 / self._count[bin_]
        surprise = seconds - self._sec[bin_]
        self._tokens[bin_] += rate * (num_tokens - self._tokens[bin_])
        self._sec[bin_] += rate * surprise
        self._variance[bin_] = (1.0 - rate) * (self._variance[bin_] + rate * surprise**2)

    def line(self, num_tokens: float) -> tuple[float, float]:
        """(base seconds, marginal seconds per token) of steps near `num_tokens`; both are positive."""
        fit = self._fit(num_tokens)
        if fit is None:
            return self.PRIOR_BASE_TOKENS, 1.0
        marginal = (fit.covariance + fit.prior * fit.belief) / (fit.spread + fit.belief)
        marginal = float(np.clip(marginal, 1e-3 * fit.prior, 0.98 * fit.mean_sec / fit.mean_tokens))
        return float(fit.mean_sec - marginal * fit.mean_tokens), marginal

    def certainty(self, num_tokens: float) -> float:
        """Share of the evidence, not of the prior, in the marginal cost near `num_tokens`; 0 to 1."""
        fit = self._fit(num_tokens)
        return 0.0 if fit is None else float(fit.spread / (fit.spread + fit.belief))

    def _fit(self, num_tokens: float) -> "_Fit | None":
        seen = self._count > 0
        if not seen.any():
            return None
        tokens, seconds, variance = self._tokens[seen], self._sec[seen], self._variance[seen]
        distance = np.log2(tokens / max(num_tokens, 1.0)) / self.REACH_OCTAVES
        weight = self._count[seen] * np.exp(-0.5 * distance**2) + 1e-9
        total = weight.sum()
        mean_tokens, mean_sec = weight @ tokens / total, weight @ seconds / total
        prior = mean_sec / (mean_tokens + self.PRIOR_BASE_TOKENS)
        noise = weight @ variance / total + (0.02 * mean_sec) ** 2
        return _Fit(
            mean_tokens=mean_tokens,
            mean_sec=mean_sec,
            spread=weight @ (tokens - mean_tokens) ** 2,
            covariance=weight @ ((tokens - mean_tokens) * (seconds - mean_sec)),
            prior=prior,
            belief=noise / prior**2,
        )


@dataclass(frozen=True)
class _Fit:
    """Moments of the steps near a batch size, weighted by how many they are and how near."""

    mean_tokens: float
    mean_sec: float
    spread: float  # sum of squares of the tokens about their mean
    covariance: float  # sum of products with the seconds
    prior: float  # slope, seconds per token
    belief: float  # spread that would outweigh the prior, which is believed to a factor of about two


@dataclass(frozen=True)
class Budget:
    """The decision for one step."""

    price: float  # a draft token is verified if its chance is at least this
    num_drafts: int


def best_budget(chances: FloatArray, num_rows: int, base_sec: float, marginal_sec: float) -> Budget:
    """Choose the drafts that maximize expected tokens per second.

    `chances` [n]: for every drafted token, the chance that it and all before it in its row are accepted.
    Within a row they do not increase, so a threshold always cuts a row's tail.
    """
    ordered = np.sort(chances)[::-1]
    num_drafts = np.arange(len(ordered) + 1)
    expected = num_rows + np.concatenate(([0.0], np.cumsum(ordered)))
    yields = expected / (base_sec + marginal_sec * (num_rows + num_drafts))
    best = int(np.argmax(yields))
    return Budget(float(min(marginal_sec * yields[best], 1.0)), best)
