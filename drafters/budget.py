"""How many draft tokens are worth verifying.

Verifying costs time for every token in the batch; a draft token brings one generated token with the chance
that it and all before it are accepted. The best set of drafts maximizes expected tokens per second,

    (num_rows + sum of chances) / step_seconds(num_rows + num_drafts),

a fractional program (Dinkelbach, Management Science 1967) whose optimum takes exactly the tokens whose
chance exceeds one threshold: the *price*, marginal seconds per token x tokens per second at the optimum.
At batch 1 the price is near zero and drafts are long; in a saturated batch it nears one.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """The decision for one step."""

    price: float  # a draft token is verified if its chance is at least this
    num_drafts: int
    gain: float  # expected tokens per second, in those without drafts


def best_budget(chances: FloatArray, num_rows: int, base_sec: float, marginal_sec: float) -> Budget:
    """Choose the drafts that maximize expected tokens per second.

    `chances` [n]: for every drafted token, the chance that it and all before it in its row are accepted.
    Within a row they do not increase, so a threshold always cuts a row's tail.
    """
    num_drafts, best_yield, plain_yield = _best(np.sort(chances), num_rows, base_sec, marginal_sec)
    return Budget(min(marginal_sec * best_yield, 1.0), num_drafts, gain=best_yield / plain_yield)


@nb.njit(cache=True)
def _best(
    ascending: FloatArray, num_rows: int, base_sec: float, marginal_sec: float
) -> tuple[int, float, float]:
    """How many drafts bring the most tokens per second; those, and those without drafts."""
    expected = float(num_rows)
    plain = expected / (base_sec + marginal_sec * num_rows)
    best, best_yield = 0, plain
    for num_drafts in range(1, len(ascending) + 1):
        expected += ascending[len(ascending) - num_drafts]
        yield_ = expected / (base_sec + marginal_sec * (num_rows + num_drafts))
        if yield_ > best_yield:
            best, best_yield = num_drafts, yield_
    return best, best_yield, plain
