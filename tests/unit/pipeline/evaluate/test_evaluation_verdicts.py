"""What the evaluation says in words follows from its intervals."""

import json

import pytest

from pipeline.evaluate.evaluation import Evaluation, Findings
from pipeline.evaluate.present import markdown, plot, verdicts
from pipeline.evaluate.results import KNOWLEDGE, Result
from pipeline.evaluate.statistics import compare, summarize_results

SPREAD = (0.0, 0.004, -0.003, 0.002, 0.001)


def findings(results):
    return Findings(20, 6, summarize_results(results), compare(results, ["none", "greedy"]))


def evaluation(relaxed_minus_greedy, gain=0.0, control=-0.02, warm=True):
    """Two models, five seeds; every difference to greedy is the given one in the mean."""
    offsets = {"none": 0.0, "greedy": gain, "strict": gain, "shuffled": gain + control}
    results = []
    for model in ("din", "deepfm"):
        for name in KNOWLEDGE:
            for seed, noise in enumerate(SPREAD):
                auc = 0.6 + noise + offsets.get(name, gain)
                auc += relaxed_minus_greedy[seed] if name == "relaxed" else 0.0
                auc += 0.0002 * (seed - 2) if name == "shuffled" else 0.0
                results.append(Result(model, name, seed, auc, 1.0 - auc, None, 5))
    meta = {
        "dataset": "toy", "model": "toy-lm", "prompt_set": "kar", "encoder": "toy-encoder", "dimension": 4,
        "max_tokens": {"user": 8, "item": 8}, "history_cutoff": "1998-01-01", "test_from": "1998-01-02",
        "num_users": 3, "num_items": 3,
        "num_interactions": 100, "num_evaluated": {"train": 50, "validation": 10, "test": 20},
        "num_test_warm": 7, "positive_share_of_test": 0.5, "evaluation": {"num_seeds": 5},
        "sets": [
            {"knowledge": name, "acceptance": ["strict"], "pools": "empty", "num_texts": 6, "num_tokens": 48,
             "tokens_per_step": 1.0, "relaxed_share": 0.0, "looping_share": 0.0, "same_as_greedy": share}
            for name, share in (("greedy", 1.0), ("strict", 0.99), ("relaxed", 0.5))
        ],
    }  # fmt: skip
    everyone = findings(results)
    return Evaluation("v1", "abc", meta, results, everyone, everyone if warm else None, 0.001)


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([0.0] * 5, "goal of ±0.001 is met"),
        ([0.0008, 0.0007, 0.0009, 0.0008, 0.0007], "goal of ±0.001 is met"),
        ([0.003, -0.004, 0.002, -0.001, 0.0], "wider than the goal of ±0.001 allows to tell"),
        ([-0.01, -0.011, -0.009, -0.01, -0.01], "goal of ±0.001 is MISSED"),
    ],
)
def test_the_goal_is_met_missed_or_undecided_for_each_model(differences, words):
    lines = verdicts(evaluation(differences))
    for model in ("din", "deepfm"):
        assert sum(line.startswith(f"{model}: ") and words in line for line in lines) == 1
        assert sum(line.startswith(f"warm users: {model}: ") and words in line for line in lines) == 1


def test_an_undecided_goal_says_which_test_would_decide_it():
    found = evaluation([0.003, -0.003, 0.003, -0.003, 0.0])
    interval = found.everyone.comparisons[0].auc_range
    line = next(line for line in verdicts(found) if line.startswith("din: "))
    half_width = 2.776445 * 0.003 / 5**0.5  # Student's t with 4 degrees of freedom
    assert interval.mean == pytest.approx(0.0)
    assert f"about {(half_width / 0.001) ** 2:.0f} times as many seeds and test users (69 and 83)" in line
    assert f"narrow ±{half_width:.4f} to it" in line


def test_an_interval_across_the_edge_needs_no_larger_test():
    lines = verdicts(evaluation([0.0008, 0.0009, 0.001, 0.0011, 0.0012]))
    assert any(line.startswith("din: ") and "lies across the edge" in line for line in lines)


def test_warm_users_with_labels_of_one_kind_are_no_secret():
    found = evaluation([0.0] * 5, warm=False)
    assert [line for line in verdicts(found) if line.startswith("warm")] == [
        "warm users: their test events hold labels of one kind, so nothing can be said of them."
    ]
    assert found.as_dict()["warm"] is None
    assert "Warm users only" not in markdown(found)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.01, "greedy knowledge helps"),
        (0.0, "greedy knowledge brings NO gain"),
        (-0.01, "greedy knowledge HURTS"),
    ],
)
def test_it_says_plainly_what_knowledge_is_worth(gain, words):
    assert any(line.startswith(words) for line in verdicts(evaluation([0.0] * 5, gain=gain)))


@pytest.mark.parametrize(
    ("control", "words"), [(-0.02, "The control loses"), (0.0, "The control does NOT lose for certain")]
)
def test_a_control_that_does_not_lose_is_no_secret(control, words):
    assert any(line.startswith(words) for line in verdicts(evaluation([0.0] * 5, control=control)))


def test_all_is_shown_and_can_be_stored(tmp_path):
    found = evaluation([0.0001] * 5)
    text = markdown(found)
    assert all(
        word in text
        for word in (
            "| din |",
            "| deepfm |",
            "relaxed - greedy",
            "99.0%",
            "toy-encoder",
            "All test events: 20 events of 6 users",
            "Warm users only",
        )
    )
    plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads(json.dumps(found.as_dict()))
    assert {"summaries", "comparisons"} <= set(stored) & set(stored["warm"])
    rows = stored["rows"]
    assert {"model", "knowledge", "seed", "auc", "logloss"} <= set(rows[0])
    assert len(rows) == 2 * 5 * 5
