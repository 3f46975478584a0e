"""What another sample of test users would have given: the bootstrap over users (and seeds)."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.evaluate.results import Metric, Result

NUM_REPLICATES = 500
MAX_WEIGHTS = 20_000_000  # held at once

# (model, knowledge, metric) -> float64 [num_seeds, num_replicates]: of each seed, among the users drawn.
Replicates = dict[tuple[str, str, Metric], np.ndarray]


def resample_users(
    results: Sequence[Result], labels: np.ndarray, users: np.ndarray, num_replicates: int = NUM_REPLICATES
) -> Replicates:
    """AUC and logloss of all `results` under the same draws of test users, with replacement.

    `labels` and `users` are those of the test events that `Result.predicted` speaks of. A draw without
    both labels has no AUC: NaN.
    """
    rows: dict[tuple[str, str, Metric], list[np.ndarray]] = {}
    per_draw = max(1, MAX_WEIGHTS // max(len(labels), 1))
    rng = np.random.default_rng(0)
    draws = [
        _user_weights(users, min(per_draw, num_replicates - first), rng)
        for first in range(0, num_replicates, per_draw)
    ]
    for result in sorted(results, key=lambda result: result.seed):
        for metric, measured in MEASURES.items():
            values = np.concatenate([measured(labels, result.predicted, weights) for weights in draws])
            rows.setdefault((result.model, result.knowledge, metric), []).append(values)
    return {cell: np.stack(values) for cell, values in rows.items()}


def _user_weights(users: np.ndarray, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [num_draws, num_events]: how often the event's user was drawn."""
    codes = np.unique(users, return_inverse=True)[1]
    num_users = int(codes.max()) + 1
    drawn = rng.multinomial(num_users, np.full(num_users, 1.0 / num_users), size=num_draws)
    return drawn.astype(np.float32)[:, codes]


def weighted_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [num_draws]: the area under the ROC curve with event weights [num_draws, num_events]."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of equal scores
    sorted_weights = weights[:, order].astype(np.float64)
    is_positive = labels[order] > 0
    positives = np.add.reduceat(sorted_weights * is_positive, starts, axis=1)
    negatives = np.add.reduceat(sorted_weights * ~is_positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    wins = (positives * (below + negatives / 2.0)).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def weighted_logloss(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [num_draws]: the mean negative log-likelihood with event weights [num_draws, num_events]."""
    edge = np.finfo(np.float64).eps  # as scikit-learn clips
    given = np.clip(np.where(labels > 0, scores, 1.0 - scores), edge, 1.0 - edge)
    losses: np.ndarray = weights @ -np.log(given) / weights.sum(axis=1, dtype=np.float64)
    return losses


MEASURES: dict[Metric, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "auc": weighted_auc,
    "logloss": weighted_logloss,
}


def difference_interval(
    replicates: Replicates,
    models: Sequence[str],
    knowledge: str,
    baseline: str,
    metric: Metric,
    confidence: float,
) -> tuple[float, float]:
    """The percentile interval of the mean difference, users and seeds drawn with replacement."""
    differences = np.mean(
        [replicates[(model, knowledge, metric)] - replicates[(model, baseline, metric)] for model in models],
        axis=0,
    )
    num_seeds, num_draws = differences.shape
    seeds = np.random.default_rng(1).integers(num_seeds, size=(num_seeds, num_draws))
    means = np.take_along_axis(differences, seeds, axis=0).mean(axis=0)
    edge = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.nanpercentile(means, [edge, 100.0 - edge])
    return float(low), float(high)
