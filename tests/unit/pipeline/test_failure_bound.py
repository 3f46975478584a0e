import pytest

from pipeline.failure_bound import too_many_failed


@pytest.mark.parametrize(
    ("num_failed", "num_planned", "fraction", "num_carried", "expected"),
    [
        (0, 0, 0.01, 0, False),
        (1, 5, 0.01, 0, False),  # one of a handful
        (2, 5, 0.01, 0, True),
        (1, 5, 0.0, 0, True),
        (2, 5, 0.01, 100_000, True),  # what is carried does not make room for failures
        (10, 1000, 0.01, 0, False),
        (11, 1000, 0.01, 0, True),
        (2, 2, 0.9, 0, True),  # nothing was written
        (1, 1, 0.01, 0, True),
        (1, 1, 0.01, 9, False),  # beside texts that stay
        (5, 5, 1.0, 0, False),  # asked for
    ],
)
def test_too_many_failed(num_failed, num_planned, fraction, num_carried, expected):
    assert too_many_failed(num_failed, num_planned, fraction, num_carried) is expected
