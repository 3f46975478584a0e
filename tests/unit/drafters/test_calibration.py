import json

import numpy as np
import pytest

from drafters.calibration import Calibration
from drafters.retrieval.draft import NUM_WEIGHTS


def test_round_trip_through_json():
    learned = Calibration(np.linspace(-1, 1, NUM_WEIGHTS), np.full(NUM_WEIGHTS, 3.0))
    again = Calibration.from_dict(json.loads(json.dumps(learned.to_dict())))
    assert np.allclose(again.weights, learned.weights, atol=1e-5)
    assert np.array_equal(again.squares, learned.squares)


def test_carried_evidence_is_capped_and_the_copy_is_its_own():
    learned = Calibration(squares=np.full(NUM_WEIGHTS, 1e6))
    again = Calibration.from_dict(learned.to_dict())
    assert again.squares.max() == Calibration.MAX_CARRIED_EVIDENCE
    again.weights[0] = 9.0
    assert learned.weights[0] != 9.0


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"weights": [1.0], "squares": [1.0]},
        {"weights": [float("nan")] * NUM_WEIGHTS, "squares": [0.0] * NUM_WEIGHTS},
        {"weights": [5.0] * NUM_WEIGHTS, "squares": [0.0] * (NUM_WEIGHTS - 1)},
    ],
)
def test_what_is_unusable_gives_an_untrained_calibration(raw):
    assert np.array_equal(Calibration.from_dict(raw).weights, Calibration().weights)
