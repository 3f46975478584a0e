"""What is compared, and what one training yields."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.evaluation_settings import CtrModel

NONE, GREEDY, STRICT, RELAXED, SHUFFLED = "none", "greedy", "strict", "relaxed", "shuffled"
Metric = Literal["auc", "logloss"]
KNOWLEDGE = (NONE, GREEDY, STRICT, RELAXED, SHUFFLED)


@dataclass(frozen=True)
class Trial:
    """One training."""

    model: CtrModel
    knowledge: str
    seed: int


@dataclass(frozen=True)
class Result:
    """What one trained model is worth on the test interactions.

    `auc_warm`: of the users that were known before the cutoff; None if they gave labels of one kind.
    `predicted`: float64 probabilities of the test events, in their order.
    """

    model: str
    knowledge: str
    seed: int
    auc: float
    logloss: float
    auc_warm: float | None
    num_epochs: int
    predicted: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.empty(0))

    def as_dict(self) -> dict[str, object]:
        """The row of `evaluation/<version>.json`."""
        return {name: value for name, value in vars(self).items() if name != "predicted"}

    def of_events(self, rows: np.ndarray, labels: np.ndarray) -> "Result":
        """The same model on some test events: `rows` of `predicted`, with their `labels` of both kinds."""
        predicted = self.predicted[rows]
        return replace(
            self,
            auc=float(roc_auc_score(labels, predicted)),
            logloss=float(log_loss(labels, predicted)),
            predicted=predicted,
        )
