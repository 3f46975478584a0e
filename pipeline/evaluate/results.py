"""What is compared, and what one training yields."""

from dataclasses import dataclass

from pipeline.evaluation_settings import CtrModel

NONE, GREEDY, STRICT, RELAXED, SHUFFLED = "none", "greedy", "strict", "relaxed", "shuffled"
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
    """

    model: str
    knowledge: str
    seed: int
    auc: float
    logloss: float
    auc_warm: float | None
    num_epochs: int
