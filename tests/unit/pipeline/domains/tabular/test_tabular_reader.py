"""Tables in every format and place become the same domain; what cannot be used is listed."""

import bz2
import gzip
import json
import lzma
import zipfile
from datetime import UTC, datetime
from pathlib import PurePath

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.domains import raw_data_of, read_domain
from pipeline.domains.tabular import entities
from pipeline.errors import ConfigError, DataError
from pipeline.groups import group_items

BOOKS = "isbn,name,genres,writer,year\n1,Low Tide,Crime|Drama,Ann Lee,1999\n2,Moth Season,Poetry,,2001\n"
LOANS = "reader,isbn,stars,at\na,1,5,880000001\nb,1,3,880000002\na,2,4,880000003\n"


def reasons(tables):
    return [(PurePath(row["file"]).name, row["line"], row["reason"]) for row in tables.failed.to_pylist()]


def test_the_columns_that_yaml_names_become_the_domain(shop, bookshop):
    tables = read_domain(bookshop(shop))
    assert tables.items.to_pylist() == [
        {"item_id": "1", "title": "Low Tide", "categories": ["Crime", "Drama"],
         "attributes": [("author", "Ann Lee"), ("year", "1999")]},
        {"item_id": "2", "title": "Moth Season", "categories": ["Poetry"], "attributes": [("year", "2001")]},
    ]  # fmt: skip
    assert tables.users["user_id"].to_pylist() == ["a", "b"]
    assert tables.interactions["rating"].to_pylist() == [5.0, 3.0, 4.0]
    assert tables.interactions["timestamp"][0].as_py() == datetime.fromtimestamp(880000001, UTC)
    assert tables.failed.num_rows == 0


def write_tsv(folder):
    for name, text in (("books", BOOKS), ("loans", LOANS)):
        (folder / f"{name}.tsv").write_text(text.replace(",", "\t"))


def write_jsonl(folder):
    for name in ("books", "loans"):
        rows = pa_csv.read_csv(folder / f"{name}.csv").to_pylist()
        for row in rows:
            if "genres" in row:
                row["genres"] = row["genres"].split("|")
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(folder):
    for name in ("books", "loans"):
        pq.write_table(pa_csv.read_csv(folder / f"{name}.csv"), folder / f"{name}.parquet")


@pytest.mark.parametrize(
    ("write", "extension"), [(write_tsv, "tsv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")]
)
def test_every_format_gives_the_same_tables(shop, bookshop, write, extension):
    expected = read_domain(bookshop(shop))
    write(shop)
    files = {name: {"files": f"{name}.{extension}"} for name in ("books", "loans")}
    tables = read_domain(bookshop(shop, files["books"], files["loans"]))
    assert tables.items.equals(expected.items)
    assert tables.interactions.equals(expected.interactions)


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_are_read_as_what_is_inside(shop, bookshop, suffix, compress):
    (shop / f"loans.csv.{suffix}").write_bytes(compress(LOANS.encode()))
    tables = read_domain(bookshop(shop, interactions={"files": f"loans.csv.{suffix}"}))
    assert tables.interactions.num_rows == 3


def test_files_may_lie_behind_a_uri_in_memory_or_in_an_archive(shop, bookshop):
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/books.csv", BOOKS.encode())
    memory.pipe("/shop/loans.csv", LOANS.encode())
    assert read_domain(bookshop("memory://shop")).interactions.num_rows == 3
    with zipfile.ZipFile(shop / "loans.zip", "w") as archive:
        archive.writestr("in/loans.csv", LOANS)
    zipped = f"zip://in/*.csv::file://{shop}/loans.zip"
    assert read_domain(bookshop(shop, interactions={"files": zipped})).interactions.num_rows == 3


def test_many_files_are_one_table_and_repetitions_across_them_are_bad(shop, bookshop):
    (shop / "more.csv").write_text("reader,isbn,stars,at\nc,2,2,880000009\na,1,5,880000001\n")
    (shop / "empty.csv").write_text("reader,isbn,stars,at\n")
    tables = read_domain(bookshop(shop, interactions={"files": ["loans.csv", "more.csv", "empty.csv"]}))
    assert tables.users["user_id"].to_pylist() == ["a", "b", "c"]
    [(file, line, reason)] = reasons(tables)
    assert (file, line) == ("more.csv", 3) and "earlier line" in reason


def test_an_item_of_an_earlier_file_is_not_taken_again(shop, bookshop):
    (shop / "books2.csv").write_text(BOOKS + "3,New,Crime,X,2000\n")
    tables = read_domain(bookshop(shop, items={"files": "books*.csv", "duplicates": "error"}))
    assert tables.items["item_id"].to_pylist() == ["1", "2", "3"]
    assert [reason for _, _, reason in reasons(tables)] == [
        "item '1' stands already in an earlier file",
        "item '2' stands already in an earlier file",
    ]


def test_the_files_that_are_read_are_said(shop, bookshop):
    """Files of one's own may be named without a folder in `raw`."""
    settings = bookshop(shop, users={"files": ["loans.csv", "b*.csv"], "id": "reader"})
    assert raw_data_of(settings) == str(shop)
    nowhere = settings.model_copy(update={"raw": None})
    assert raw_data_of(nowhere) == "loans.csv, b*.csv, books.csv"
    many = bookshop(shop, users={"files": [f"{n}.csv" for n in range(9)], "id": "reader"})
    assert raw_data_of(many.model_copy(update={"raw": None})).endswith("4.csv and 6 more")


LOG = """who,age,isbn,name,genres,writer,stars,when
a,24,1,Low Tide,Crime,Ann Lee,5,880000001
b,,1,Low Tide,Crime,Ann Lee,3,880000002
a,25,2,,Poetry,,4,880000003
b,31,2,Moth Season,Poetry,,1,880000004
a,25,1,Low Tide!,Drama,,2,880000005
"""


@pytest.mark.parametrize(
    ("which", "title", "age_of_a"), [("first", "Low Tide", "24"), ("last", "Low Tide!", "25")]
)
@pytest.mark.parametrize("num_at_once", [0, 200_000])
def test_one_log_may_describe_users_items_and_interactions(
    shop, bookshop, monkeypatch, caplog, which, title, age_of_a, num_at_once
):
    """The usual export of a shop, one row for each interaction: of an entity's rows one counts."""
    monkeypatch.setattr(entities, "NUM_REPEATED_AT_ONCE", num_at_once)
    caplog.set_level("INFO")
    (shop / "log.csv").write_text(LOG)
    (shop / "log2.csv").write_text(LOG.splitlines()[0] + "\nc,,3,Owl,Crime,,5,880000006\n")
    duplicates = {} if which == "first" else {"duplicates": which}
    files = {"files": "log*.csv", **duplicates}
    users = {**files, "id": "who", "attributes": {"age": "age"}}
    loans = {"files": "log*.csv", "user": "who", "timestamp": "when"}
    settings = bookshop(
        shop, items={**files, "attributes": {"author": "writer"}}, interactions=loans, users=users
    )
    tables = read_domain(settings)
    items = {row["item_id"]: row["title"] for row in tables.items.to_pylist()}
    assert items == {"1": title, "2": "Moth Season", "3": "Owl"}
    ages = {row["user_id"]: dict(row["attributes"]).get("age") for row in tables.users.to_pylist()}
    assert ages == {"a": age_of_a, "b": None if which == "first" else "31", "c": None}
    assert tables.interactions.num_rows == 6
    assert [(line, reason) for _, line, reason in reasons(tables)] == [(4, "no title")]
    messages = [message for message in caplog.messages if "repeat" in message]
    assert messages == [
        "dataset.tabular.items: 2 of 5 rows repeat the id of another; the "
        f"{which} row of each item counts (duplicates: {which}); "
        "they do not always agree, item '1' is 'Low Tide' and 'Low Tide!'",
        f"dataset.tabular.users: 3 of 6 rows repeat the id of another; the {which} row of each user counts "
        f"(duplicates: {which})",
    ]
    core = read_domain(
        settings.model_copy(update={"tabular": settings.tabular.model_copy(update={"k_core": 2})})
    )
    assert {row["item_id"]: row["title"] for row in core.items.to_pylist()} == {
        "1": title,
        "2": "Moth Season",
    }


def test_bad_rows_are_listed_with_their_reasons(shop, bookshop):
    with (shop / "loans.csv").open("a") as file:
        file.write("a,1\nx,9,5,1\n,1,5,1\nb,2,nine,1\nb,2,9,1\nb,2,4,soon\nb,2,4,\n")
    tables = read_domain(bookshop(shop))
    assert [(line, reason) for _, line, reason in reasons(tables)] == [
        (5, "2 fields instead of 4"),
        (6, "unknown item '9'"),
        (7, "no user id"),
        (8, "rating 'nine' is not a number"),
        (9, "rating 9 is outside 1 to 5"),
        (10, "timestamp 'soon' is not a number"),
        (11, "timestamp '' is not a number"),
    ]
    assert tables.interactions.num_rows == 3


def test_feedback_may_be_implicit_in_part_or_as_a_whole(shop, bookshop):
    (shop / "loans.csv").write_text("reader,isbn,stars,at\na,1,0,1\na,2,,2\nb,2,4,3\n")
    rating = {"rating": {"column": "stars", "implicit_values": ["0"]}}
    assert read_domain(bookshop(shop, interactions=rating)).interactions["rating"].to_pylist() == [
        None,
        None,
        4.0,
    ]
    implicit = bookshop(shop, interactions={"rating": None}, min_rating=None, max_rating=None)
    assert implicit.rating_range is None
    assert read_domain(implicit).interactions["rating"].null_count == 3


@pytest.mark.parametrize(
    ("unit", "text"),
    [("s", "880000001"), ("ms", "880000001000"), ("us", "880000001000000"), ("iso", "1997-11-20T04:26:41"),
     ("iso", "1997-11-20T06:26:41+02:00"), ("iso", "1997-11-20 04:26:41Z")],
)  # fmt: skip
def test_times_in_every_unit(shop, bookshop, unit, text):
    (shop / "loans.csv").write_text(f"reader,isbn,stars,at\na,1,5,{text}\na,2,5,never\n")
    tables = read_domain(bookshop(shop, interactions={"timestamp": {"column": "at", "unit": unit}}))
    assert tables.interactions["timestamp"].to_pylist() == [datetime(1997, 11, 20, 4, 26, 41, tzinfo=UTC)]
    assert tables.failed.num_rows == 1


def test_without_times_the_order_of_rows_is_kept(shop, bookshop):
    tables = read_domain(bookshop(shop, interactions={"timestamp": None}))
    times = tables.interactions["timestamp"].cast(pa.int64()).to_pylist()
    assert times == sorted(times) and len(set(times)) == 3


def test_parquet_keeps_its_times_and_whole_ids(shop, bookshop):
    at = pa.array([datetime(2020, 1, 1), None], pa.timestamp("ns"))
    ids = pa.array([1.0, 2.0])
    table = pa.table({"reader": [7, 8], "isbn": ids, "stars": [5, 4], "at": at})
    pq.write_table(table, shop / "loans.parquet", coerce_timestamps="us")
    tables = read_domain(bookshop(shop, interactions={"files": "loans.parquet"}))
    assert tables.interactions.to_pylist() == [
        {"user_id": "7", "item_id": "1", "rating": 5.0, "timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
    ]
    assert reasons(tables) == [("loans.parquet", 2, "no timestamp")]


def test_quotes_escapes_encodings_and_files_without_a_header(shop, bookshop):
    rows = ['"1";"Caf\u00e9; ""bleu""";"Crime"', '"2";"The \\"Owl\\"";"Poetry"', '"3";"Plain";"Poetry"']
    (shop / "books.csv").write_bytes("\n".join(rows).encode("latin-1"))
    items = {
        "separator": ";", "escape": "\\", "encoding": "latin-1", "columns": ["isbn", "name", "genres"],
        "attributes": {}, "categories": "genres",
    }  # fmt: skip
    tables = read_domain(bookshop(shop, items=items))
    assert tables.items["title"].to_pylist() == ['Caf\u00e9; "bleu"', 'The "Owl"', "Plain"]


def test_users_with_attributes_are_those_of_their_table(shop, bookshop):
    (shop / "readers.csv").write_text("who,town\na,Ghent\nc,NULL\n")
    users = {"files": "readers.csv", "id": "who", "attributes": {"home town": "town"}}
    tables = read_domain(bookshop(shop, users=users))
    assert tables.users.to_pylist() == [
        {"user_id": "a", "attributes": [("home town", "Ghent")]},
        {"user_id": "c", "attributes": []},
    ]
    assert reasons(tables) == [("loans.csv", 3, "unknown user 'b'")]


def test_the_k_core_leaves_who_has_enough(shop, bookshop):
    (shop / "loans.csv").write_text("reader,isbn,stars,at\na,1,5,1\na,2,4,2\nb,1,3,3\nb,2,3,4\nc,1,1,5\n")
    tables = read_domain(bookshop(shop, k_core=2))
    assert tables.users["user_id"].to_pylist() == ["a", "b"]
    assert tables.interactions.num_rows == 4
    with pytest.raises(DataError, match=r"dataset.tabular.k_core=3: no user and item"):
        read_domain(bookshop(shop, k_core=3))


def test_items_are_grouped_by_an_attribute(shop, bookshop):
    (shop / "books.csv").write_text(
        "isbn,name,genres,writer,year\n1,A,x,Lee,1\n2,B,x,lee,1\n3,C,x,Poe,1\n4,D,x,,1\n"
    )
    settings = bookshop(shop, item_groups={"attribute": "author", "num_largest": 1})
    groups = group_items(read_domain(settings).items, settings.item_groups)
    assert groups["group"].to_pylist() == ["lee", "lee", "other", "other"]
    settings = bookshop(shop, item_groups={"attribute": "auther", "num_largest": 1})
    with pytest.raises(ConfigError, match="no item has this attribute"):
        group_items(read_domain(settings).items, settings.item_groups)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("items", {"files": "nope.csv"}, "dataset.tabular.items.files=nope.csv: there is no such file"),
        ("items", {"title": "naem"}, "lacks naem"),
        ("items", {"files": "books.data"}, "dataset.tabular.items.format: books.data does not say"),
        ("items", {"files": "books.csv.gz"}, "books.csv.gz: cannot be read"),
        ("items", {"files": "books.parquet"}, "not a readable Parquet file"),
        ("interactions", {"files": "nope://x/y.csv"}, "nope"),
        (
            "interactions",
            {"columns": ["reader"]},
            "dataset.tabular.interactions.columns: does not name 'isbn'",
        ),
    ],
)
def test_what_is_wrong_is_one_line(shop, bookshop, part, change, message):
    for name in ("books.data", "books.csv.gz", "books.parquet"):
        (shop / name).write_text(BOOKS)
    with pytest.raises((DataError, ConfigError)) as caught:
        read_domain(bookshop(shop, **{part: change}))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def no_write(folder):
    pass


@pytest.mark.parametrize(
    ("write", "extension"),
    [(no_write, "csv"), (write_tsv, "tsv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")],
)
@pytest.mark.parametrize(
    ("part", "change", "wrong", "found", "right"),
    [
        ("interactions", {"rating": "starz"}, "starz", "reader, isbn, stars, at", "stars"),
        ("items", {"attributes": {"author": "writter"}}, "writter", "isbn, name, genres, writer", "writer"),
    ],
)
def test_a_misspelled_column_is_named_beside_those_that_are_there(
    shop, bookshop, write, extension, part, change, wrong, found, right
):
    write(shop)
    files = {"items": {"files": f"books.{extension}"}, "interactions": {"files": f"loans.{extension}"}}
    files[part] |= change
    with pytest.raises(DataError) as caught:
        read_domain(bookshop(shop, **files))
    message = str(caught.value)
    assert wrong in message and f"there are {found}" in message and f"did you mean '{right}'?" in message


def test_a_key_that_only_some_json_files_have_is_no_mistake(shop, bookshop):
    (shop / "a.jsonl").write_text('{"reader": "a", "isbn": "1", "at": 1}\n')
    (shop / "b.jsonl").write_text('{"reader": "b", "isbn": "1", "stars": 4, "at": 2}\n')
    tables = read_domain(bookshop(shop, interactions={"files": "?.jsonl"}))
    assert tables.interactions["rating"].to_pylist() == [None, 4.0]


def test_the_section_of_the_reader_is_needed_and_explicit_ratings_need_a_range(shop, bookshop):
    for changes, message in (
        ({"tabular": None}, "dataset.tabular: missing"),
        ({"reader": "movielens"}, "dataset.tabular: must be null"),
        ({"min_rating": None}, "dataset.min_rating: missing"),
    ):
        with pytest.raises(ValidationError, match=message):
            bookshop(shop, **changes)
