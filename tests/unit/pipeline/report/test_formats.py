import pytest

from pipeline.report.formats import count, decimal, duration, percent, signed_percent


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (3.24, "3.2 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (60, "1 min"),
        (312, "5 min 12 s"),
        (628, "10 min"),
        (2504, "42 min"),
        (3569, "59 min"),
        (3570, "1 h"),
        (7500, "2 h 5 min"),
        (36_000_000, "10,000 h"),
    ],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "-"), (0, "0 %"), (1, "100 %"), (0.9999, "100 %"), (0.123, "12.3 %"), (0.0009, "0.09 %")],
)
def test_percentages(share, shown):
    assert percent(share) == shown


def test_numbers():
    assert (count(1234567), count(None), decimal(1.005, 1), decimal(None)) == ("1,234,567", "-", "1.0", "-")
    assert (signed_percent(0.125), signed_percent(-0.5), signed_percent(0.0001)) == (
        "+12.5 %",
        "-50.0 %",
        "0 %",
    )
