"""What becomes text, and how much of it is kept."""

from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domains import read_domain
from pipeline.errors import DataError
from pipeline.schemas import INTERACTIONS, INTERACTIONS_WITH_TEXT


def test_dates_of_parquet_are_texts_where_a_text_is_wanted(shop, bookshop):
    days = pa.array([datetime(2020, 1, 1), datetime(2020, 1, 1, 6, 30)], pa.timestamp("ms"))
    columns = {"isbn": days, "name": days, "genres": days, "writer": days, "year": days.cast(pa.date32())}
    pq.write_table(pa.table(columns), shop / "books.parquet")
    loans = {"reader": days, "isbn": days, "stars": [5, 4], "at": days}
    pq.write_table(pa.table(loans), shop / "loans.parquet")
    files = {"items": {"files": "books.parquet"}, "interactions": {"files": "loans.parquet"}}
    tables = read_domain(bookshop(shop, **files))
    ids = ["2020-01-01", "2020-01-01T06:30:00.000000"]
    assert tables.items["item_id"].to_pylist() == tables.interactions["user_id"].to_pylist() == ids
    assert [tables.items[name][1].as_py() for name in ("title", "categories")] == [
        "2020-01-01",
        ["2020-01-01"],
    ]
    assert tables.items["attributes"][1].as_py() == [("author", "2020-01-01"), ("year", "2020-01-01")]
    pq.write_table(pa.table(loans | {"stars": days}), shop / "loans.parquet")
    with pytest.raises(DataError, match="rating '2020-01-01' is not a number"):
        read_domain(bookshop(shop, **files))


def test_what_an_item_keeps_is_bounded_and_no_category_is_halved(shop, bookshop):
    genres = "|".join(f"genre {number}" for number in range(5000))
    long_row = f"1,{' ' * 3000}{'x' * 3000},{genres},{'w' * 3000},\n"
    (shop / "books.csv").write_text(f"isbn,name,genres,writer,year\n{long_row}2,Two,Short|Crime,,\n")
    [long, short] = read_domain(bookshop(shop)).items.to_pylist()
    assert (len(long["title"]), len(dict(long["attributes"])["author"])) == (1000, 1000)
    assert long["categories"] == genres.split("|")[: len(long["categories"])]
    assert 1500 < len(long["categories"]) < 2000
    assert (short["title"], short["categories"]) == ("Two", ["Short", "Crime"])


def test_what_users_wrote_is_kept_within_a_bound(shop, bookshop):
    reviews = [f"So\n\ngood. {'x' * 3000}", "", " ", "Again: fine", "By nobody's friend"]
    loans = {
        "reader": ["a", "b", "a", "a", "b"],
        "isbn": ["1", "1", "2", "2", "9"],
        "stars": ["5", "3", "4", "4", "1"],
        "at": [1, 2, 3, 3, 4],
        "review": reviews,
    }
    pq.write_table(pa.table(loans), shop / "loans.parquet")
    interactions = {"files": "loans.parquet", "text": "review"}
    tables = read_domain(bookshop(shop, interactions=interactions))
    assert tables.interactions.schema.equals(INTERACTIONS_WITH_TEXT)
    [long, empty, blank] = tables.interactions["text"].to_pylist()
    assert long == f"So good. {'x' * 3000}"[:501] and empty is None and blank is None
    assert tables.failed.num_rows == 2  # a repetition, whatever it says, and an unknown book
    with pytest.raises(DataError, match=r"there is no column 'revue'; .* did you mean 'review'"):
        read_domain(bookshop(shop, interactions=interactions | {"text": "revue"}))
    assert read_domain(bookshop(shop)).interactions.schema.equals(INTERACTIONS)
