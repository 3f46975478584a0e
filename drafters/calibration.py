"""What the drafter has learned about its own drafts; kept from run to run beside the datastore."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from drafters.retrieval.draft import NUM_WEIGHTS


def _untrained_weights() -> npt.NDArray[np.float64]:
    """A sceptical start: an even chance, raised by agreement of the votes (see `_describe` for the order)."""
    weights = np.zeros(NUM_WEIGHTS)
    weights[0], weights[2], weights[3] = 0.3, 0.25, 0.25
    return weights


@dataclass
class Calibration:
    """Weights of the logistic model of acceptance and the squared gradients of AdaGrad.

    Single tokens have weights too, so it belongs to one tokenizer, like the pools it is kept beside.
    """

    weights: npt.NDArray[np.float64] = field(default_factory=_untrained_weights)
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(NUM_WEIGHTS))

    MAX_CARRIED_EVIDENCE = 100.0
    """Evidence taken over from an earlier run is capped, so that a new model or domain can correct it."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; five decimals, since most of these weights are those of single tokens."""
        return {"weights": self.weights.round(5).tolist(), "squares": self.squares.round(5).tolist()}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Calibration":
        """From `to_dict`; a calibration of another shape is not usable and gives an untrained one."""
        weights = np.asarray(raw.get("weights", ()), dtype=np.float64)
        squares = np.asarray(raw.get("squares", ()), dtype=np.float64)
        usable = weights.shape == squares.shape == (NUM_WEIGHTS,)
        if not usable or not (np.isfinite(weights).all() and np.isfinite(squares).all()):
            return cls()
        return cls(weights.copy(), np.minimum(squares, cls.MAX_CARRIED_EVIDENCE))
