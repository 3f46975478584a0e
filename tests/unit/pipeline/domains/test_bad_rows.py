"""Every kind of bad row: recorded with file, line and reason, and kept out of the tables."""

from pathlib import PurePath

import pytest

from pipeline.domains import read_domain
from pipeline.domains.raw import lines
from pipeline.errors import DataError


def failures(tables):
    return [(PurePath(row["file"]).name, row["line"], row["reason"]) for row in tables.failed.to_pylist()]


def append(path, *rows):
    with path.open("ab") as file:
        for row in rows:
            file.write(row if isinstance(row, bytes) else row.encode())
            file.write(b"\n")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,10,4.5", "3 fields instead of 4"),
        ("1,10,4.5,1225734739,extra", "5 fields instead of 4"),
        ('1,10,"4.5,1225734739', "quotes do not match"),
        (b"1,10,4\xff,1225734739", "bytes that do not decode as text"),
        (",10,4.5,1225734739", "no user id"),
        ("1,10,good,1225734739", "rating 'good' is not a number"),
        ("1,10,,1225734739", "rating '' is not a number"),
        ("1,10,nan,1225734739", "rating 'nan' is not a number"),
        ("1,10,5.5,1225734739", "rating 5.5 is outside 0.5 to 5"),
        ("1,10,0,1225734739", "rating 0 is outside 0.5 to 5"),
        ("1,10,4.5,yesterday", "timestamp 'yesterday' is not a number"),
        ("1,10,4.5,-5", "timestamp -5 is not in seconds between the years 1970 and 9999"),
        (
            "1,10,4.5,1225734739000",
            "timestamp 1225734739000 is not in seconds between the years 1970 and 9999",
        ),
        ("1,99,4.5,1225734739", "unknown item '99'"),
        ("1,10,4.5,1225734739", "the same user, item and timestamp stand on an earlier line"),
    ],
)
def test_bad_ratings_of_csv(raw_folder, dataset, row, reason):
    folder = raw_folder("csv")
    append(folder / "ratings.csv", row, "3,11,2.5,1225734740")
    tables = read_domain(dataset(folder))
    assert failures(tables) == [("ratings.csv", 5, reason)]
    assert tables.interactions["user_id"].to_pylist() == ["1", "1", "2", "3"]
    failed = tables.failed.to_pylist()[0]
    shown = row.decode("ascii", "backslashreplace") if isinstance(row, bytes) else row
    assert (failed["stage"], failed["content"], failed["entity_id"]) == ("read", shown, None)


def test_bytes_of_another_encoding_cost_nothing_in_a_column_that_nobody_reads(raw_folder, dataset):
    folder = raw_folder("csv")
    (folder / "movies.csv").write_bytes(
        b"movieId,gr\xf6\xdfe,title,genres\n10,g\xfcnstig,Lighthouse (1995),Drama\n"
        b'11,"two\n\xfc lines",Fox (2000),Drama\n12,x,Caf\xe9 (1999),Drama\n13,\xfc,Elk (2001)\n'
    )
    tables = read_domain(dataset(folder))
    assert tables.items["title"].to_pylist() == ["Lighthouse", "Fox"]
    assert failures(tables) == [("movies.csv", line, "bytes that do not decode as text") for line in (5, 6)]
    assert [row["content"] for row in tables.failed.to_pylist()] == [
        "12,x,Caf\\xe9 (1999),Drama", "13,\\xfc,Elk (2001)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("12,Owl (1999)", "2 fields instead of 3"),
        ("12,,Drama", "missing title"),
        ("12,(1999),Drama", "missing title"),
        (",Owl (1999),Drama", "no item id"),
        ("10,Owl (1999),Drama", "item '10' stands already on line 2"),
        (b"12,Caf\xe9 (1999),Drama", "bytes that do not decode as text"),
    ],
)
def test_bad_items_of_csv(raw_folder, dataset, row, reason):
    folder = raw_folder("csv")
    append(folder / "movies.csv", row, "13,Fox (2000),Drama")
    tables = read_domain(dataset(folder))
    assert failures(tables) == [("movies.csv", 4, reason)]
    assert tables.items["item_id"].to_pylist() == ["10", "11", "13"]


@pytest.mark.parametrize(
    ("form", "file", "row", "reason"),
    [
        ("100k", "u.data", "1\t10\t4", "3 fields instead of 4"),
        ("100k", "u.data", "9\t10\t4\t880000009", "unknown user '9'"),
        ("100k", "u.item", "12|Owl (1999)|01-Jan-1999|", "4 fields instead of 24"),
        ("100k", "u.item", "12|||" + "|0" * 20, "missing title"),
        (
            "100k",
            "u.item",
            "12|Owl||" + "|2" * 20,
            "genre flags '" + "|".join("2" * 19) + "' are not all 0 or 1",
        ),
        ("100k", "u.item", b"12|Caf\x82 (1999)||" + b"|0" * 20, "bytes that do not decode as text"),
        ("100k", "u.user", "2|30|F|writer|1", "user '2' stands already on line 2"),
        ("100k", "u.user", "4|30|X|writer|1", "gender 'X' is not one of F, M"),
        ("1m", "ratings.dat", "1::10::5", "3 fields instead of 4"),
        ("1m", "ratings.dat", "9::10::4::978300760", "unknown user '9'"),
        ("1m", "movies.dat", "12::::Drama", "missing title"),
        (
            "1m",
            "users.dat",
            "4::F::1::21::1",
            "occupation '21' is not one of " + ", ".join(map(str, range(21))),
        ),
        ("1m", "users.dat", "4::F::7::2::1", "age '7' is not one of 1, 18, 25, 35, 45, 50, 56"),
        ("10m", "movies.dat", b"12::Caf\xe9 (1999)::Drama", "bytes that do not decode as text"),
        ("10m", "ratings.dat", "1::10::6::838985047", "rating 6 is outside 0.5 to 5"),
        ("atomic", "x.inter", "1\t12\t4\t880000009", "unknown item '12'"),
        ("atomic", "x.item", "12\t\t1999\tDrama", "missing title"),
    ],
)
def test_bad_rows_of_the_other_forms(raw_folder, dataset, form, file, row, reason):
    folder = raw_folder(form)
    line = len((folder / file).read_bytes().splitlines()) + 1
    append(folder / file, row)
    assert failures(read_domain(dataset(folder))) == [(file, line, reason)]


def test_ratings_of_a_rejected_item_are_recorded_too(raw_folder, dataset):
    folder = raw_folder("csv")
    (folder / "movies.csv").write_text("movieId,title,genres\n10,Owl,Drama\n11,,Drama\n")
    assert failures(read_domain(dataset(folder))) == [
        ("movies.csv", 3, "missing title"),
        ("ratings.csv", 3, "unknown item '11'"),
    ]


def test_lines_are_counted_right_across_blocks_blank_lines_and_all_kinds(raw_folder, dataset, monkeypatch):
    monkeypatch.setattr(lines.read_line_blocks, "__defaults__", (None, 64))
    folder = raw_folder("csv")
    rows = [f"{user},10,4,{1_000_000_000 + user}" for user in range(200)]
    rows[20] = "broken"
    rows[50] = ""
    rows[90] = b"1,10,\xff,1000000000"
    rows[120] = rows[7]
    rows[199] = "1,10,x,1000000000"
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    append(folder / "ratings.csv", *rows)
    tables = read_domain(dataset(folder))
    assert [(line, reason.split()[0]) for _, line, reason in failures(tables)] == [
        (22, "1"),
        (92, "bytes"),
        (122, "the"),
        (201, "rating"),
    ]
    assert tables.interactions.num_rows == 195


def test_rows_in_are_rows_out_plus_failures(raw_folder, dataset):
    folder = raw_folder("1m")
    append(folder / "ratings.dat", "1::10::x::1", "junk", "2::11::9::978300760", "3::11::4::978300760")
    tables = read_domain(dataset(folder))
    assert tables.interactions.num_rows + tables.failed.num_rows == 3 + 4


def test_long_lines_are_shortened_in_the_record(raw_folder, dataset):
    folder = raw_folder("csv")
    append(folder / "ratings.csv", "1,10," + "x" * 1000 + ",1")
    failed = read_domain(dataset(folder)).failed.to_pylist()[0]
    assert len(failed["content"]) == 200
    assert failed["reason"] == f"rating '{'x' * 60}' is not a number"


def test_repetitions_keep_the_first_and_other_times_are_no_repetition(raw_folder, dataset):
    folder = raw_folder("csv")
    append(folder / "ratings.csv", "1,10,1.0,1225734739", "1,10,2.0,1225734740", "1,10,3.0,1225734739")
    tables = read_domain(dataset(folder))
    assert [line for _, line, _ in failures(tables)] == [5, 7]
    assert tables.interactions["rating"].to_pylist() == [4.5, 3.0, 0.5, 2.0]


def test_too_many_bad_rows_stop_with_counts_and_the_first_reason(raw_folder, dataset):
    folder = raw_folder("csv")
    append(folder / "ratings.csv", "1,10,4", "1,10,9,1225734739")
    with pytest.raises(DataError) as raised:
        read_domain(dataset(folder, max_bad_fraction=0.39))
    assert str(raised.value) == (
        f"{folder / 'ratings.csv'}: 2 of 5 rows are bad, more than dataset.max_bad_fraction=0.39 allows;"
        " first, line 5: 3 fields instead of 4"
    )
    assert read_domain(dataset(folder, max_bad_fraction=0.4)).failed.num_rows == 2


@pytest.mark.parametrize("file", ["u.item", "u.user", "u.data"])
def test_the_threshold_holds_for_each_file(raw_folder, dataset, file):
    folder = raw_folder("100k")
    append(folder / file, "broken")
    with pytest.raises(DataError, match=rf"{file}: 1 of \d rows is bad"):
        read_domain(dataset(folder, max_bad_fraction=0.05))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"userId,movieId,rating,timestamp\n"])
def test_files_without_rows_are_errors(raw_folder, dataset, content):
    folder = raw_folder("csv")
    (folder / "ratings.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"ratings\.csv: the file has no rows"):
        read_domain(dataset(folder))
    (folder / "movies.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"movies\.csv: the file has no rows"):
        read_domain(dataset(folder))


def test_a_file_of_bad_rows_only_is_an_error_whatever_is_allowed(raw_folder, dataset):
    folder = raw_folder("csv")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,99,3,5\n")
    with pytest.raises(DataError, match="its only row is not good"):
        read_domain(dataset(folder, max_bad_fraction=1.0))


def test_a_quoted_value_over_lines_is_one_row_and_its_lines_are_no_rows(raw_folder, dataset):
    folder = raw_folder("csv")
    append(
        folder / "movies.csv",
        '12,"Owl\n13,Forged,Drama\n\nend (1999)",Drama',
        '14,"Fox\n(2000)"',
        "15,Elk,Drama",
    )
    tables = read_domain(dataset(folder))
    assert tables.items["item_id"].to_pylist() == ["10", "11", "12", "15"]
    assert tables.items["title"].to_pylist()[2].startswith("Owl\n13,Forged,Drama\n\nend")
    assert failures(tables) == [("movies.csv", 8, "2 fields instead of 3, and quotes around 2 lines")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "userId;movieId;rating;timestamp",
            "it reads 'userId;movieId;rating;timestamp': look at `separator`",
        ),
        ('"userId,movieId,rating,timestamp', "it reads '\"userId,movieId,rating,timestamp': look at"),
        (b"\xff\xffu\x00s\x00", r"it reads '\\xff\\xffu\x00s\x00': look at `separator` and `encoding`"),
        ("x" * 300_000, "xxx…': look at"),
        (",".join("x" * n for n in range(2000)), "there are , x, xx"),
    ],
)
def test_a_header_that_is_none_is_shown_in_short(raw_folder, dataset, header, message):
    folder = raw_folder("csv")
    rows = (folder / "ratings.csv").read_bytes().split(b"\n", 1)[1]
    (folder / "ratings.csv").write_bytes(
        (header if isinstance(header, bytes) else header.encode()) + b"\n" + rows
    )
    with pytest.raises(DataError) as raised:
        read_domain(dataset(folder))
    found = str(raised.value)
    assert "lacks userId, movieId, rating, timestamp; " in found and message in found
    assert len(found) < 3000
