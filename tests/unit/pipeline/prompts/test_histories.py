from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.prompts.cleaning import DataCleaner
from pipeline.prompts.histories import Histories, clean_attributes, effective_cutoff, item_card
from pipeline.schemas import INTERACTIONS, TIMESTAMP

ITEMS = ["i0", "i1", "i2", "i3"]


def interactions(rows):
    """`rows`: (user, item, rating, microsecond)."""
    users, items, ratings, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    stamps = pa.array(times, pa.int64()).cast(TIMESTAMP)
    return pa.table(
        [pa.array(users, pa.string()), pa.array(items, pa.string()), pa.array(ratings, pa.float32()), stamps],
        schema=INTERACTIONS,
    )


def histories(rows, users, cutoff=None, max_history=100, items=ITEMS):
    return Histories(interactions(rows), pa.array(users), pa.array(items), cutoff, max_history)


def test_shows_the_most_recent_ratings_oldest_first():
    rows = [("a", "i2", 3, 30), ("b", "i0", 1, 5), ("a", "i0", 5, 10), ("a", "i1", 4.5, 20)]
    found = histories(rows, ["b", "a", "c"], max_history=2)
    np.testing.assert_array_equal(found.num_ratings, [1, 2, 0])
    assert found.recent(1, 2) == [(1, 4.5), (2, 3)]
    assert found.recent(1, 1) == [(2, 3)]
    assert found.recent(1, 0) == found.recent(2, 0) == []
    assert found.recent(0, 1) == [(0, 1)]


def test_the_cutoff_itself_is_not_visible():
    rows = [("a", "i0", 5, 10), ("a", "i1", 5, 11)]
    cutoff = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=11)
    assert histories(rows, ["a"], cutoff).recent(0, 1) == [(0, 5)]


def test_ratings_are_written_as_people_write_them():
    rows = [("a", "i0", 4.0, 1), ("a", "i1", 4.3, 2), ("a", "i2", None, 3), ("a", "i3", 0.5, 4)]
    shown = [rating for _, rating in histories(rows, ["a"]).recent(0, 4)]
    assert list(map(str, shown)) == ["4", "4.3", "None", "0.5"]
    rows = [("a", "i0", 0.0, 1), ("a", "i1", 0.004, 2), ("a", "i2", -0.00012346, 3), ("a", "i3", 0.0123, 4)]
    shown = [rating for _, rating in histories(rows, ["a"]).recent(0, 4)]
    assert list(map(str, shown)) == ["0", "0.004", "-0.000123", "0.01"]


def test_an_unknown_item_is_named():
    with pytest.raises(DataError, match="item 'i9' is not in the items table"):
        histories([("a", "i9", 1, 1)], ["a"])


RATINGS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(ITEMS), st.sampled_from([1.0, 2.5, 5.0]), st.integers(0, 5)
    ),
    max_size=30,
    unique_by=lambda row: (row[0], row[1], row[3]),
)


@given(RATINGS, st.integers(1, 5), st.data())
def test_neither_the_order_of_rows_nor_of_items_shows(rows, max_history, data):
    shuffled, items = data.draw(st.permutations(rows)), data.draw(st.permutations(ITEMS))
    found = histories(rows, ["a", "b"], max_history=max_history)
    again = histories(shuffled, ["b", "a"], max_history=max_history, items=items)
    for user, row, other in (("a", 0, 1), ("b", 1, 0)):
        own = sorted((time, item, rating) for name, item, rating, time in rows if name == user)
        expected = [(item, rating) for _, item, rating in own][-max_history:]
        for history, known, position in ((found, ITEMS, row), (again, items, other)):
            recent = history.recent(position, int(history.num_ratings[position]))
            assert [(known[item], rating) for item, rating in recent] == expected


def test_without_a_cutoff_the_row_says_what_it_saw():
    latest = effective_cutoff(interactions([("a", "i0", 1, 41), ("a", "i1", 1, 7)]), None)
    assert latest == datetime.fromtimestamp(0, UTC) + timedelta(microseconds=42)
    assert effective_cutoff(interactions([]), None) is None


def test_cutoffs_are_read_in_utc():
    naive = effective_cutoff(interactions([]), datetime(2000, 1, 1))
    assert naive == datetime(2000, 1, 1, tzinfo=UTC)
    zoned = datetime(2000, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert effective_cutoff(interactions([]), zoned) == naive


@pytest.mark.parametrize(
    ("title", "attributes", "name"),
    [
        ("Up", [("year", "2009")], "Up (2009)"),
        ("Up (2009)", [("year", "2009")], "Up (2009)"),
        ("Up", [], "Up"),
        ("\x00", [("year", "2009")], "(untitled) (2009)"),
    ],
)
def test_the_name_of_an_item_has_its_year_once(title, attributes, name):
    row = {"title": title, "categories": ["Drama", ""], "attributes": attributes}
    card = item_card(row, DataCleaner())
    assert card.name == name
    assert card.categories == ("Drama",)
    assert "year" not in card.attributes


def test_attributes_are_few_and_have_values():
    pairs = [("age", "24"), ("zip", None), ("job", " \n"), *((f"a{n}", "x") for n in range(50))]
    cleaned = clean_attributes(pairs, DataCleaner())
    assert list(cleaned)[:2] == ["age", "a0"]
    assert len(cleaned) == 20
