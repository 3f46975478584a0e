"""How far relaxed texts are from strict ones, in numbers, and which numbers are over their budget."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.summary import count_repeated_ngrams
from pipeline.quality_settings import QualitySettings


@dataclass(frozen=True)
class QualityMetric:
    """A measure. `budget`: the most it may be; None: it only informs."""

    name: str
    value: float
    budget: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it is within its budget."""
        return self.budget is None or self.value <= self.budget

    def as_dict(self) -> dict[str, Any]:
        """As `quality.json` has it; `ok` is null for what only informs."""
        return asdict(self) | {"ok": None if self.budget is None else self.is_ok}


@dataclass(frozen=True)
class DecodedTexts:
    """The same entities, decoded in one way. `embeddings`: float [num_texts, width]."""

    embeddings: np.ndarray
    token_ids: pa.ListArray
    num_relaxed_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return int(pc.sum(pc.list_value_length(self.token_ids), min_count=0).as_py())

    @property
    def looping_share(self) -> float:
        """Of all 8-grams of tokens, those that stood in the same text before."""
        repeated, total = count_repeated_ngrams(self.token_ids)
        return repeated / total if total else 0.0


def measure(
    relaxed: DecodedTexts,
    strict: DecodedTexts,
    sampled: tuple[DecodedTexts, DecodedTexts],
    budgets: QualitySettings,
) -> list[QualityMetric]:
    """All metrics of one sample, each with its budget."""
    drift = mean_distance(relaxed.embeddings, strict.embeddings)
    sampled_drift = mean_distance(sampled[0].embeddings, sampled[1].embeddings)
    length_ratio = relaxed.num_tokens / max(strict.num_tokens, 1)
    metrics = [
        QualityMetric("drift", drift, budgets.max_drift),
        QualityMetric("sampled_drift", sampled_drift),
        QualityMetric(
            "relaxed_share",
            relaxed.num_relaxed_tokens / max(relaxed.num_tokens, 1),
            budgets.max_relaxed_share,
        ),
        QualityMetric("length_ratio", length_ratio),
        QualityMetric("length_change", abs(length_ratio - 1.0), budgets.max_length_change),
        QualityMetric("looping_share", relaxed.looping_share),
        QualityMetric(
            "looping_increase", relaxed.looping_share - strict.looping_share, budgets.max_looping_increase
        ),
        QualityMetric("same_text_share", _same_share(relaxed.token_ids, strict.token_ids)),
    ]
    if sampled_drift > 0:
        ratio = QualityMetric("drift_to_sampled", drift / sampled_drift, budgets.max_drift_to_sampled)
        metrics.insert(2, ratio)
    return metrics


def mean_distance(left: np.ndarray, right: np.ndarray) -> float:
    """The mean cosine distance (0: the same direction, 1: unrelated, 2: opposite) of the rows."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("ij,ij->i", left, right)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return float(np.mean(1.0 - np.clip(cosines, -1.0, 1.0)))


def _same_share(left: pa.ListArray, right: pa.ListArray) -> float:
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
    return sum(one == other for one, other in pairs) / max(len(left), 1)
