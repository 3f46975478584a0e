"""What results say on all test events, and on those of warm users alone; and where it is stored."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.evaluate.evaluation import Evaluation, find_all, find_warm
from pipeline.evaluate.results import Result
from pipeline.evaluate.run import _digest
from pipeline.evaluate.split import TEST, split_events
from pipeline.evaluation_settings import EvaluationSettings
from tests.evaluation import IDS, START, interactions
from tests.generation import run_settings

ROWS = [(f"u{day % 2}", f"i{day % 4}", 1 + day % 5, day) for day in range(30)]
ROWS += [(f"u{1 + day % 2}", f"i{day % 4}", 1 + day % 5, day) for day in range(30, 50)]
EVENTS = split_events(interactions(ROWS), IDS, START + timedelta(days=30), EvaluationSettings())


def results():
    """`greedy` knows the labels of new users, and nothing of warm ones."""
    test = EVENTS.of_part(TEST)
    is_new = ~np.isin(test, EVENTS.warm)
    found = []
    for seed in range(3):
        noise = np.random.default_rng(seed).uniform(0.3, 0.6, len(test))
        for name in ("none", "greedy"):
            known = 0.3 * EVENTS.labels[test] * is_new if name == "greedy" else 0.0
            scores = noise + known
            auc, loss = roc_auc_score(EVENTS.labels[test], scores), log_loss(EVENTS.labels[test], scores)
            found.append(Result("din", name, seed, auc, loss, None, 1, scores))
    return found


def test_warm_users_are_compared_by_their_own_events():
    everyone, warm = find_all(results(), EVENTS), find_warm(results(), EVENTS)
    assert (everyone.num_events, everyone.num_users) == (20, 2)
    assert (warm.num_events, warm.num_users) == (10, 1)
    assert everyone.comparisons[0].auc.mean > 0.1
    assert warm.comparisons[0].auc.mean == pytest.approx(0.0)
    assert warm.comparisons[0].logloss.mean == pytest.approx(0.0)
    labels, rows = EVENTS.labels[EVENTS.warm], np.searchsorted(EVENTS.of_part(TEST), EVENTS.warm)
    none = [roc_auc_score(labels, one.predicted[rows]) for one in results() if one.knowledge == "none"]
    assert warm.summaries[0].auc.mean == pytest.approx(np.mean(none))


def test_an_evaluation_keeps_a_name_of_its_own_beside_the_latest():
    settings = run_settings()
    more_seeds = settings.evaluation.model_copy(update={"num_seeds": 10})
    encoder = settings.encoder.model_copy(update={"path": "/encoders/other"})
    digests = {
        _digest(settings),
        _digest(settings.model_copy(update={"evaluation": more_seeds})),
        _digest(settings.model_copy(update={"encoder": encoder})),
    }
    assert len(digests) == 3
    found = Evaluation("v1", "abc", {}, [], find_all(results(), EVENTS), None, 0.001)
    assert found.paths(Path("x"), "json") == [Path("x/v1-abc.json"), Path("x/v1.json")]
