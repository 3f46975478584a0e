"""Moments in every spelling; what no moment is, and what nobody can count with, is a listed bad row."""

import random
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domains import read_domain
from pipeline.domains.tabular.times import iso_times
from pipeline.errors import DataError
from pipeline.prompts.histories import effective_cutoff

BOUND = "is not from 1970 to 9999-12-31 23:59:59"
SPELLINGS = [
    "2020-01-01", "20200101", "2020-02-29", "2000-02-29", "2020-12-31T23:59:59", "2020-01-01 00:00",
    "2020-01-01T07", "20200101T070809", "20200101T0708Z", "2020-01-01T00:00:00.5", "2020-01-01T00:00:00,25Z",
    "2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.123456789", "2020-01-01T00:00:00Z",
    "2020-01-01T00:00:00+02:00", "2020-01-01 00:00:00-0530", "2020-01-01T00:00:00.1+14", "1960-05-05",
    "2020-01-01T00:00:00 Z", " 2020-01-01T00:00:00Z ",
]  # fmt: skip
NO_MOMENTS = [
    "", "bad", "2020-02-30", "2021-02-29", "1900-02-29", "2020-04-31", "2020-13-01", "2020-00-10",
    "2020-01-01T24:00", "2020-01-01T23:60", "2020-01-01T23:59:60", "2020-01-01T00:00+25:00", "2020/01/01",
    "1577836800", "2020-1-1", "2020-01-01Z", "2020-01-01T", "2020-01-01T00:00:00.", "2020-01-01T00:00:00ZZ",
    "2020-01-01T00:00:00+02:00+02:00", "2020-01-01T00:00:00.1.2", "202001011",
]  # fmt: skip


def micros(text: str) -> int | None:
    """What Python's own reader makes of `text`."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def read_iso(*texts: str | None) -> list[int | None]:
    return iso_times(pa.chunked_array([pa.array(texts, pa.string())])).cast(pa.int64()).to_pylist()


def test_every_spelling_means_the_same_alone_and_among_others():
    expected = [micros(text) for text in SPELLINGS]
    assert None not in expected
    assert [read_iso(text)[0] for text in SPELLINGS] == expected
    assert read_iso(*SPELLINGS, *NO_MOMENTS, None) == expected + [None] * (len(NO_MOMENTS) + 1)
    assert [read_iso(text) for text in NO_MOMENTS] == [[None]] * len(NO_MOMENTS)


def test_mutilated_times_are_what_python_takes_them_for_or_nothing():
    rng = random.Random(7)
    texts = []
    for _ in range(5000):
        letters = list(rng.choice(SPELLINGS))
        for _ in range(rng.randint(1, 2)):
            letters[rng.randrange(len(letters))] = rng.choice("0123456789:-+.TZ")
        texts.append("".join(letters))
    texts = [text for text in texts if not text.strip().startswith("0000")]  # Python's years begin with 1
    found = dict(zip(texts, read_iso(*texts), strict=True))
    assert {text: value for text, value in found.items() if value not in (None, micros(text))} == {}
    assert sum(value is not None for value in found.values()) > 500


def loans_of(shop, times, kind) -> dict[str, str]:
    table = pa.table({
        "reader": [f"r{n}" for n in range(len(times))], "isbn": ["1"] * len(times),
        "stars": [5] * len(times), "at": pa.array(times, kind),
    })  # fmt: skip
    pq.write_table(table, shop / "loans.parquet")
    return {"files": "loans.parquet"}


def failures(tables) -> list[tuple[int, str]]:
    return [(row["line"], row["reason"]) for row in tables.failed.to_pylist()]


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ([0, 10**18, -1, None], pa.timestamp("us")),
        ([0, 253_402_300_800, -1, None], pa.timestamp("s", "Europe/Berlin")),
        ([date(1970, 1, 1), 2_932_897, date(1969, 12, 31), None], pa.date32()),
    ],
)
def test_typed_times_have_bounds(shop, bookshop, times, kind):
    tables = read_domain(bookshop(shop, interactions=loans_of(shop, times, kind)))
    assert tables.interactions["timestamp"].to_pylist() == [datetime(1970, 1, 1, tzinfo=UTC)]
    assert failures(tables) == [
        (2, f"the timestamp {BOUND}"),
        (3, f"the timestamp {BOUND}"),
        (4, "no timestamp"),
    ]


def test_iso_times_have_bounds(shop, bookshop):
    times = ["9999-12-31T23:59:59", "9999-12-31T23:59:59.999999", "1969-12-31", "0001-01-01T00:00:00+02:00"]
    rows = "".join(f"r{number},1,5,{time}\n" for number, time in enumerate(times))
    (shop / "loans.csv").write_text("reader,isbn,stars,at\n" + rows)
    tables = read_domain(bookshop(shop, interactions={"timestamp": {"column": "at", "unit": "iso"}}))
    assert failures(tables) == [(line, f"timestamp '{times[line - 2]}' {BOUND}") for line in (3, 4, 5)]
    cutoff = effective_cutoff(tables.interactions, None)
    assert cutoff == datetime(9999, 12, 31, 23, 59, 59, 1, UTC)


MOMENT = 1_225_734_739  # seconds
WRITTEN = {"s": MOMENT, "ms": MOMENT * 10**3, "us": MOMENT * 10**6, "ns": MOMENT * 10**9, "iso": "20081103"}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso": "ISO dates"}


def write_loans(shop, *times):
    rows = "".join(f"r{number},1,5,{time}\n" for number, time in enumerate(times))
    (shop / "loans.csv").write_text("reader,isbn,stars,at\n" + rows)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "iso"])
@pytest.mark.parametrize("written", WRITTEN)
def test_times_in_another_unit_are_refused_with_the_likely_one(shop, bookshop, unit, written):
    write_loans(shop, WRITTEN[written], "", 0, *[WRITTEN[written]] * 30)
    dataset = bookshop(shop, interactions={"timestamp": {"column": "at", "unit": unit}})
    if unit == written:
        days = read_domain(dataset).interactions["timestamp"].to_pylist()
        assert [day.date() for day in days if day.year > 1970] == [date(2008, 11, 3)] * 31
        return
    with pytest.raises(DataError) as raised:
        read_domain(dataset)
    remedy = "divide them by 1,000 and write `unit: us`" if written == "ns" else f"write `unit: {written}`"
    found = str(raised.value)
    assert found.startswith(
        f"dataset.tabular.interactions.timestamp: column 'at' of {shop}/loans.csv holds {NAMES[written]}"
    )
    assert f", such as {WRITTEN[written]}, and not {NAMES[unit]}" in found and found.endswith("; " + remedy)


@pytest.mark.parametrize("times", [range(50), range(0, 2_000_000_000, 50_000_000), [0] * 9, ["x"] * 3 + [1]])
def test_times_that_count_from_anywhere_are_read_in_the_unit_that_is_given(shop, bookshop, times):
    write_loans(shop, *times)
    tables = read_domain(bookshop(shop, interactions={"timestamp": {"column": "at", "unit": "ms"}}))
    assert tables.interactions.num_rows + tables.failed.num_rows == len(times)
    assert tables.interactions["timestamp"][-1].value == times[-1] * 1000


def test_each_file_is_judged_by_itself(shop, bookshop):
    write_loans(shop, MOMENT)
    (shop / "loans.csv").rename(shop / "loans-1.csv")
    write_loans(shop, MOMENT * 1000)
    (shop / "loans.csv").rename(shop / "loans-2.csv")
    with pytest.raises(DataError, match=r"loans-2\.csv holds milliseconds, such as 1225734739000, "):
        read_domain(bookshop(shop, interactions={"files": "loans-*.csv"}))


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_typed_times_that_were_made_of_numbers_in_the_wrong_unit_are_refused(shop, bookshop, unit):
    interactions = loans_of(shop, [WRITTEN[unit]] * 3, pa.timestamp("ns"))
    with pytest.raises(DataError, match=rf"such as 1970-01-.*: {NAMES[unit]} were taken for a smaller unit"):
        read_domain(bookshop(shop, interactions=interactions))


def test_presets_refuse_another_unit_too(raw_folder, dataset):
    folder = raw_folder("1m")
    text = (folder / "ratings.dat").read_text()
    (folder / "ratings.dat").write_text(text.replace("\n", "000\n"))
    with pytest.raises(DataError, match=r"ratings\.dat: the timestamp holds milliseconds, such as 97830076"):
        read_domain(dataset(folder))
