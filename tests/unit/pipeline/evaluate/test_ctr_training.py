"""CTR models find a planted signal in knowledge, and nothing in the control."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch

pytest.importorskip("torch_rechub", reason="make evaluate installs the CTR library")

from pipeline.evaluate import train
from pipeline.evaluate.features import make_inputs
from pipeline.evaluate.results import Trial
from pipeline.evaluate.split import split_events
from pipeline.evaluate.train import Workbench, run_trial, run_trials, vectors_of
from pipeline.evaluation_settings import CTR_MODELS, CtrTrainingSettings, EvaluationSettings
from tests.evaluation import START, interactions, tables_of

NUM_USERS, NUM_ITEMS, DIMENSION = 40, 60, 4
TRAINING = CtrTrainingSettings(
    embedding_dim=8, hidden=[16], dropout=0.0, learning_rate=0.01, batch_size=128, max_epochs=8
)


def bench():
    """Likes follow the sign of user taste times item taste; knowledge tells both. Half the items are new
    in the test, so that ids alone cannot know them."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(NUM_USERS, DIMENSION)), rng.normal(size=(NUM_ITEMS, DIMENSION))
    likes = items[:, 0] + 0.5 * np.einsum("ud,id->ui", users, items) > 0
    rows = []
    for number in range(3000):
        is_test = number >= 2400
        user = int(rng.integers(NUM_USERS))
        item = int(rng.integers(NUM_ITEMS // 2)) + (NUM_ITEMS // 2 if is_test else 0)
        if number >= 2160 and rng.random() < 0.5:
            item = int(rng.integers(NUM_ITEMS))
        rows.append((f"u{user}", f"i{item}", 5 if likes[user, item] else 1, number))
    table = interactions(rows)
    ids = {
        "user": pa.array([f"u{number}" for number in range(NUM_USERS)]),
        "item": pa.array([f"i{number}" for number in range(NUM_ITEMS)]),
    }
    events = split_events(table, ids, START + timedelta(days=2400), EvaluationSettings())
    greedy = {"user": with_mask(users), "item": with_mask(items)}
    inputs = make_inputs(events, tables_of(table), 5)
    return Workbench(inputs, events, {"greedy": greedy, "strict": greedy}, TRAINING)


def with_mask(vectors):
    table = np.zeros((len(vectors) + 1, DIMENSION + 1), np.float32)
    table[1:, :DIMENSION], table[1:, DIMENSION] = vectors, 1.0
    return table


BENCH = bench()


def auc(model, knowledge, seed=0):
    trial = Trial(model, knowledge, seed)
    return run_trial(BENCH, trial, vectors_of(BENCH.knowledge, trial)).auc


@pytest.mark.parametrize("model", CTR_MODELS)
def test_a_planted_signal_is_found_and_lost_when_shuffled(model):
    none, greedy, shuffled = (auc(model, name) for name in ("none", "greedy", "shuffled"))
    assert greedy > none + 0.05
    assert greedy > shuffled + 0.05


def test_a_training_repeats_exactly_and_equal_knowledge_gives_equal_results():
    assert auc("deepfm", "greedy", 3) == auc("deepfm", "strict", 3)
    assert auc("deepfm", "greedy", 3) != auc("deepfm", "greedy", 4)


@pytest.mark.parametrize("model", CTR_MODELS)
def test_paired_trials_begin_alike_and_see_the_same_batches(model, monkeypatch):
    """Only the vectors differ: every other parameter begins as in the other trial, `none` included."""
    seen = []

    def fit(built, columns, labels, bench, rng):
        order = rng.permutation(1000)
        next_random = torch.rand(8)  # what dropout would draw next
        trained = {name: value.detach().clone() for name, value in built.named_parameters()}
        trained = {name: value for name, value in trained.items() if not name.endswith("knowledge.0.weight")}
        seen.append((order, next_random, trained))
        return 1

    monkeypatch.setattr(train, "_fit", fit)
    for knowledge in ("none", "greedy", "shuffled"):
        auc(model, knowledge, 3)
    order, next_random, parameters = seen[0]
    assert any("knowledge.1.weight" in name for name in parameters)
    for other_order, other_random, other in seen[1:]:
        assert np.array_equal(order, other_order)
        assert torch.equal(next_random, other_random)
        assert parameters.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in parameters.items())


def test_processes_give_the_results_of_one_process_in_order():
    trials = [Trial("deepfm", name, seed) for name in ("none", "greedy") for seed in (0, 1)]
    seen = []
    results = run_trials(BENCH, trials, 2, seen.append)
    assert [(one.knowledge, one.seed) for one in results] == [(one.knowledge, one.seed) for one in trials]
    assert seen == results
    assert results[2].auc == pytest.approx(auc("deepfm", "greedy"), abs=1e-6)
