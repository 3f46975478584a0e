"""How far relaxed texts are from strict ones, and when that is too far."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import QualityError
from pipeline.quality.gate import QualityReport
from pipeline.quality.metrics import DecodedTexts, QualityMetric, mean_distance, measure
from pipeline.quality_settings import QualitySettings

RIGHT, UP, LEFT = [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]


def texts(embeddings, token_ids, num_relaxed=0):
    return DecodedTexts(np.array(embeddings), pa.array(token_ids, pa.list_(pa.int32())), num_relaxed)


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [
        ([RIGHT], [RIGHT], 0.0),
        ([RIGHT], [UP], 1.0),
        ([RIGHT], [LEFT], 2.0),
        ([RIGHT, RIGHT], [RIGHT, UP], 0.5),
        ([RIGHT], [[0.0, 0.0]], 1.0),
    ],
)
def test_distances_are_of_cosines(left, right, distance):
    assert mean_distance(np.array(left), np.array(right)) == pytest.approx(distance)


def values(metrics):
    return {metric.name: metric.value for metric in metrics}


def test_what_is_measured():
    relaxed = texts([RIGHT, RIGHT], [[1, 2, 3, 4, 5, 6], [1, 2]], num_relaxed=2)
    strict = texts([RIGHT, UP], [[1, 2], [1, 2]])
    sampled = (texts([RIGHT, RIGHT], [[1], [1]]), texts([UP, UP], [[1], [1]]))
    found = values(measure(relaxed, strict, sampled, QualitySettings()))
    assert found["drift"] == pytest.approx(0.5)
    assert found["sampled_drift"] == pytest.approx(1.0)
    assert found["drift_to_sampled"] == pytest.approx(0.5)
    assert found["relaxed_share"] == pytest.approx(0.25)
    assert found["length_ratio"] == pytest.approx(2.0)
    assert found["length_change"] == pytest.approx(1.0)
    assert found["same_text_share"] == pytest.approx(0.5)


def test_a_loop_counts_against_relaxed_texts_only():
    loop = texts([RIGHT], [[1, 2, 3, 4] * 10])
    plain = texts([RIGHT], [list(range(40))])
    sampled = (plain, plain)
    assert values(measure(loop, plain, sampled, QualitySettings()))["looping_increase"] > 0.5
    assert values(measure(plain, loop, sampled, QualitySettings()))["looping_increase"] < 0


def test_samples_that_do_not_differ_give_no_ratio():
    same = texts([RIGHT], [[1]])
    assert "drift_to_sampled" not in values(measure(same, same, (same, same), QualitySettings()))


@pytest.mark.parametrize(("value", "budget", "ok"), [(0.1, 0.2, True), (0.2, 0.2, True), (0.3, 0.2, False)])
def test_a_budget_is_the_most_a_metric_may_be(value, budget, ok):
    assert QualityMetric("drift", value, budget).is_ok is ok
    assert QualityMetric("drift", value, budget).as_dict()["ok"] is ok


def test_what_has_no_budget_only_informs():
    assert QualityMetric("drift", 9.0).is_ok
    assert QualityMetric("drift", 9.0).as_dict() == {
        "name": "drift",
        "value": 9.0,
        "budget": None,
        "ok": None,
    }


def test_over_a_budget_the_night_fails_with_one_line():
    report = QualityReport(3, 3, [QualityMetric("drift", 0.4, 0.3), QualityMetric("length_change", 0.1, 0.2)])
    with pytest.raises(QualityError, match=r"run_id=r1: .*drift=0.4, at most 0.3") as caught:
        report.require_ok("r1")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "length_change" not in str(caught.value)
    QualityReport(0, 0, []).require_ok("r1")


def test_a_gate_that_could_measure_little_fails_too():
    for sample in (0, 11):
        with pytest.raises(QualityError, match=f"run_id=r1: only {sample} of 24 relaxed texts") as caught:
            QualityReport(24, sample, []).require_ok("r1")
        assert "\n" not in str(caught.value)
    QualityReport(24, 12, []).require_ok("r1")
