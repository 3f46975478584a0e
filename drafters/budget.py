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
    ordered = np.sort(chances)[::-1]
    num_drafts = np.arange(len(ordered) + 1)
    expected = num_rows + np.concatenate(([0.0], np.cumsum(ordered)))
    yields = expected / (base_sec + marginal_sec * (num_rows + num_drafts))
    best = int(np.argmax(yields))
    price = float(min(marginal_sec * yields[best], 1.0))
    return Budget(price, best, gain=float(yields[best] / yields[0]))
