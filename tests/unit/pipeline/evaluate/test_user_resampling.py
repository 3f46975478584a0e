"""The bootstrap over test users."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.evaluate.resampling import difference_interval, resample_users, weighted_auc, weighted_logloss
from pipeline.evaluate.results import Result
from pipeline.evaluate.statistics import compare

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 400).astype(np.float32)
USERS = RNG.integers(0, 40, 400)


def test_weighted_auc_is_that_of_sklearn_ties_included():
    scores = np.round(RNG.random(400), 1)
    weights = RNG.integers(0, 4, (3, 400)).astype(np.float32)
    expected = [roc_auc_score(LABELS, scores, sample_weight=row) for row in weights]
    assert weighted_auc(LABELS, scores, weights) == pytest.approx(expected)


def test_weighted_logloss_is_that_of_sklearn_certain_scores_included():
    scores = np.append(RNG.random(398), [0.0, 1.0])
    weights = RNG.integers(0, 4, (3, 400)).astype(np.float32)
    expected = [log_loss(LABELS, scores, sample_weight=row) for row in weights]
    assert weighted_logloss(LABELS, scores, weights) == pytest.approx(expected, rel=1e-5)


def test_a_draw_without_both_labels_has_no_auc():
    assert np.isnan(weighted_auc(LABELS, RNG.random(400), (LABELS > 0)[None, :].astype(np.float32))).all()


def results(strength):
    """Scores that know the label, `greedy` by `strength` better than `none`."""
    found = []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=400)
        for name, known in (("none", 0.5), ("greedy", 0.5 + strength)):
            scores = 1.0 / (1.0 + np.exp(-(noise + known * LABELS)))
            auc, logloss = float(roc_auc_score(LABELS, scores)), float(log_loss(LABELS, scores))
            found.append(Result("din", name, seed, auc, logloss, None, 1, scores))
    return found


def test_equal_scores_differ_by_nothing_in_any_draw():
    replicates = resample_users(results(0.0), LABELS, USERS, 50)
    for metric in ("auc", "logloss"):
        assert difference_interval(replicates, ["din"], "greedy", "none", metric, 0.95) == (0.0, 0.0)


def test_a_real_difference_is_found_and_users_widen_the_interval():
    found = results(1.5)
    comparison = compare(found, ["none"], resample_users(found, LABELS, USERS, 200))[0]
    assert comparison.auc_resampled.low > 0.05
    assert comparison.auc_resampled.low < comparison.auc.mean < comparison.auc_resampled.high
    assert comparison.logloss_resampled.low < comparison.logloss.mean < comparison.logloss_resampled.high
    assert comparison.auc_range.low <= min(comparison.auc.low, comparison.auc_resampled.low)


def test_the_same_draws_come_again():
    first, again = (resample_users(results(0.5), LABELS, USERS, 20) for _ in range(2))
    assert all(np.array_equal(first[cell], again[cell]) for cell in first)
