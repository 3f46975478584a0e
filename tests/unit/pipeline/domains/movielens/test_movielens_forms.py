from datetime import UTC, datetime

import pytest

from pipeline.domains import read_domain
from pipeline.errors import DataError
from pipeline.schemas import FAILED, INTERACTIONS, ITEMS, USERS

CODED_USERS = {
    "1": {"age": "under 18", "gender": "female", "occupation": "K-12 student"},
    "2": {"age": "56 or older", "gender": "male", "occupation": "self-employed"},
    "3": {"age": "25-34", "gender": "male"},
}
WORDED_USERS = {
    "1": {"age": "24", "gender": "female", "occupation": "writer"},
    "2": {"age": "53", "gender": "male"},
}
NO_ATTRIBUTES: dict[str, dict[str, str]] = {"1": {}, "2": {}}


@pytest.mark.parametrize(
    ("form", "users", "second_title", "second_year", "second_genres", "ratings"),
    [
        (
            "100k",
            WORDED_USERS | {"3": {"age": "19", "gender": "male"}},
            "Le Café bleu",
            "1990",
            [],
            [5, 3, 4],
        ),
        ("1m", CODED_USERS, "Le Café bleu", "1990", ["Drama"], [5, 3, 4]),
        ("10m", NO_ATTRIBUTES, "Le Café bleu", "1990", [], [4.5, 3, 0.5]),
        ("csv", NO_ATTRIBUTES, 'Le Café "bleu"', "1990", [], [4.5, 3, 0.5]),
        ("atomic", WORDED_USERS, "Le Café bleu", None, [], [5, 3, 4]),
    ],
)
def test_each_form_gives_the_same_tables(
    raw_folder, dataset, form, users, second_title, second_year, second_genres, ratings
):
    tables = read_domain(dataset(raw_folder(form)))

    assert {row["user_id"]: dict(row["attributes"]) for row in tables.users.to_pylist()} == users
    first, second = tables.items.to_pylist()
    assert (first["item_id"], first["title"], first["categories"]) == (
        "10",
        "The Lighthouse",
        ["Comedy", "Drama"],
    )
    assert dict(first["attributes"]) == {"year": "1995"}
    assert (second["title"], second["categories"]) == (second_title, second_genres)
    assert dict(second["attributes"]).get("year") == second_year
    assert tables.interactions["user_id"].to_pylist() == ["1", "1", "2"]
    assert tables.interactions["item_id"].to_pylist() == ["10", "11", "10"]
    assert tables.interactions["rating"].to_pylist() == ratings
    assert tables.failed.num_rows == 0
    for table, schema in [
        (tables.users, USERS),
        (tables.items, ITEMS),
        (tables.interactions, INTERACTIONS),
        (tables.failed, FAILED),
    ]:
        assert table.schema.equals(schema)


def test_timestamps_are_seconds_in_utc(raw_folder, dataset):
    tables = read_domain(dataset(raw_folder("atomic")))
    assert tables.interactions["timestamp"][1].as_py() == datetime.fromtimestamp(880000002, UTC)


@pytest.mark.parametrize("form", ["100k", "1m", "10m", "csv", "atomic"])
def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(raw_folder, dataset, form):
    folder = raw_folder(form)
    expected = read_domain(dataset(folder))
    for file in folder.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    tables = read_domain(dataset(folder))
    assert tables.items.equals(expected.items)
    assert tables.users.equals(expected.users)
    assert tables.interactions.equals(expected.interactions)


def test_columns_of_a_csv_are_found_by_name(raw_folder, dataset):
    folder = raw_folder("csv")
    (folder / "ratings.csv").write_text("timestamp,note,rating,movieId,userId\n1225734739,x,4.5,10,7\n")
    row = read_domain(dataset(folder)).interactions.to_pylist()[0]
    assert (row["user_id"], row["item_id"], row["rating"]) == ("7", "10", 4.5)


def test_a_header_that_lacks_a_column_is_named(raw_folder, dataset):
    folder = raw_folder("csv")
    (folder / "ratings.csv").write_text("user,movieId,rating,timestamp\n1,10,4.5,1225734739\n")
    with pytest.raises(DataError, match=r"ratings\.csv: line 1 .* lacks userId; there are "):
        read_domain(dataset(folder))


def test_latin_1_files_that_someone_converted_are_read_as_utf_8(raw_folder, dataset):
    folder = raw_folder("1m")
    text = (folder / "movies.dat").read_bytes().decode("latin-1")
    (folder / "movies.dat").write_text(text, encoding="utf-8")
    assert read_domain(dataset(folder)).items["title"][1].as_py() == "Le Café bleu"
