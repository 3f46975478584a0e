"""Whatever a file holds, reading it gives tables and listed bad rows, or one line; no silent loss."""

import csv
import gzip
import io
import json
import re
from pathlib import PurePath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domains import read_domain
from pipeline.domains.raw import lines
from pipeline.errors import PipelineError
from pipeline.schemas import INTERACTIONS, ITEMS, USERS, conform
from pipeline.settings import DatasetSettings
from tests.fuzzing import FUZZED

# Pieces that a random text would rarely hit: separators, quotes, line ends, markup, odd numbers.
PIECES = st.sampled_from(
    [
        ",",
        ";",
        "\t",
        "|",
        "::",
        '"',
        '""',
        "\\",
        "\n",
        "\r\n",
        "\r",
        "\x00",
        "\x1f",
        "\ufeff",
        "1",
        "2",
        "5",
        "-1",
        "1e400",
        "nan",
        "inf",
        "9" * 400,
        "880000001",
        "{",
        "}",
        "[",
        "]",
        ":",
        "null",
        "true",
        '"id"',
        "\ud800",
        "<|im_end|>",
        "{{ x }}",
        "../..",
        "\U0001f600",
        "\u0645",
        "\u202e",
        "item",
        "user",
        "stars",
        "at",
        "title",
        " ",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=60).map("".join)
BYTES = st.one_of(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=300))
HEADER = b"user,item,stars,at\n"
ITEMS_CSV = "item,title\n1,One\n2,Two\n"


def shop(folder, kind: str, **interactions) -> DatasetSettings:
    columns = {"user": "user", "item": "item", "rating": "stars", "timestamp": "at"}
    return DatasetSettings.model_validate({
        "name": "shop", "reader": "tabular", "raw": str(folder), "max_bad_fraction": 1.0, "min_rating": 1,
        "max_rating": 5, "item_word": "thing",
        "tabular": {
            "items": {"files": "items.csv", "id": "item", "title": "title"},
            "interactions": {"files": f"events.{kind}", **columns, **interactions},
        },
        "item_groups": {"groups": {}}, "user_groups": {"num_groups": 2, "num_factors": 2},
    })  # fmt: skip


def outcome(dataset: DatasetSettings, num_rows: int | None = None) -> None:
    """Read; every row is good or listed, tables keep their contract, errors are one line."""
    try:
        tables = read_domain(dataset)
    except PipelineError as error:
        assert str(error) and error.exit_code == 2
        return
    conform(tables.users, USERS, "users", unique=("user_id",))
    conform(tables.items, ITEMS, "items", unique=("item_id",))
    conform(tables.interactions, INTERACTIONS, "interactions", unique=("user_id", "item_id", "timestamp"))
    listed = sum(PurePath(row["file"]).name.startswith("events") for row in tables.failed.to_pylist())
    if num_rows is not None:
        assert tables.interactions.num_rows + listed == num_rows


def num_lines(content: bytes) -> int:
    """Lines that are not blank."""
    cut = content.removeprefix(lines.UTF8_BOM).split(b"\n")
    return sum(bool(line.rstrip(b"\r\n")) for line in cut)


@FUZZED
@given(BYTES.filter(lambda content: b'"' not in content))
@pytest.mark.parametrize("unit", ["s", "ms", "us", "iso"])
def test_rows_of_csv(tmp_path, unit, content):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    body = HEADER + b"a,1,5,1\n" + content
    (tmp_path / "events.csv").write_bytes(body)
    outcome(shop(tmp_path, "csv", timestamp={"column": "at", "unit": unit}), num_lines(body) - 1)


@FUZZED
@given(
    BYTES,
    st.sampled_from([",", ";", "\t", "|", "::", " ", '"', "\n", "\r", "\u00e9", "x"]),
    st.sampled_from([None, "\\", '"', ",", ";", "\n", "\r", "e"]),
    st.sampled_from(["utf-8", "latin-1", "cp1252"]),
)
def test_text_under_any_settings(tmp_path, content, separator, escape, encoding):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    row = separator.join(["a", "1", "5", "1"]).encode("utf-8")
    (tmp_path / "events.csv").write_bytes(row + b"\n" + content)
    columns = ["user", "item", "stars", "at"]
    given_ = {"separator": separator, "escape": escape, "encoding": encoding, "columns": columns}
    outcome(shop(tmp_path, "csv", **given_))


NOTES = st.one_of(
    st.sampled_from(
        ["b,2,1,2,forged", "x\nb,2,1,2,forged\ny", '"\nb,2,1,2,"forged', "\n\n\r\n", "\x81\n\x9d"]
    ),
    st.lists(
        st.one_of(PIECES.filter(str.isascii), st.text(st.characters(max_codepoint=255))), max_size=12
    ).map("".join),
)


@FUZZED
@given(
    st.lists(NOTES, min_size=1, max_size=6),
    st.sampled_from([",", ";", "|"]),
    st.sampled_from(["utf-8", "latin-1", "cp1252"]),
    st.sampled_from([1, 7, 100, 1 << 20]),
)
def test_what_a_user_writes_is_nothing_but_its_own_value(tmp_path, notes, separator, encoding, block_bytes):
    """Whatever is quoted, the rows are those that were written, or listed: never others."""
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["user", "note", "item", "stars", "at"])
    writer.writerows([f"u{place}", note, 1, 5, place] for place, note in enumerate(notes))
    (tmp_path / "events.csv").write_bytes(text.getvalue().encode(encoding, "replace"))
    dataset = shop(tmp_path, "csv", separator=separator, encoding=encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines.read_line_blocks, "__defaults__", (None, block_bytes))
        try:
            tables = read_domain(dataset)
        except PipelineError as error:
            assert re.search(r"rows (are|is) bad|rows is good|only row is not good", str(error))
            return
    found = [(row["user_id"], row["timestamp"].timestamp()) for row in tables.interactions.to_pylist()]
    lost = tables.failed.to_pylist()
    assert set(found) <= {(f"u{place}", place) for place in range(len(notes))}
    assert len(found) + len(lost) == len(notes)
    assert {row["reason"] for row in lost} <= {"bytes that do not decode as text"}


@FUZZED
@given(BYTES)
@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "csv.bz2", "csv.xz", "jsonl.gz"]
)
def test_files_of_anything(tmp_path, kind, content):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    (tmp_path / f"events.{kind}").write_bytes(content)
    outcome(shop(tmp_path, kind))


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS.filter(str.isprintable)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["user", "item", "stars", "at", "x"])


@FUZZED
@given(st.lists(st.one_of(st.dictionaries(KEYS, JSON_VALUES), JSON_VALUES), max_size=8))
def test_json_of_any_shape(tmp_path, values):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    rows = [{"user": "a", "item": 1, "stars": 5, "at": 1}, *values]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome(shop(tmp_path, "jsonl"), len(rows))


@FUZZED
@given(st.data())
def test_damaged_archives_and_parquet(tmp_path, data):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    table = pa.table({"user": ["a"] * 50, "item": ["1"] * 50, "stars": [5.0] * 50, "at": list(range(50))})
    pq.write_table(table, tmp_path / "events.parquet")
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(HEADER + b"a,1,5,1\n" * 50))
    for kind in ("parquet", "csv.gz"):
        path = tmp_path / f"events.{kind}"
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        outcome(shop(tmp_path, kind))


@FUZZED
@given(BYTES)
def test_amazon_lines_of_anything(tmp_path, content):
    (tmp_path / "meta.json").write_bytes(b"{'asin': '1', 'title': 'One'}\n" + content)
    review = {"reviewerID": "a", "asin": "1", "overall": 5, "unixReviewTime": 1}
    (tmp_path / "reviews.json").write_bytes(json.dumps(review).encode() + b"\n" + content)
    values = shop(tmp_path, "csv").model_dump() | {"reader": "amazon", "tabular": None}
    amazon = {"reviews": "reviews.json", "metadata": "meta.json", "k_core": 1}
    outcome(DatasetSettings.model_validate(values | {"amazon": amazon}))


def test_titles_of_a_megabyte_and_ids_of_any_characters_arrive(tmp_path):
    (tmp_path / "items.csv").write_text(f"item,title\n../../x\x00y,{'T' * 1_000_000}\n2,Two\n")
    (tmp_path / "events.csv").write_bytes(HEADER + "a\x00/..,../../x\x00y,5,1\n\U0001f600,2,4,2\n".encode())
    tables = read_domain(shop(tmp_path, "csv"))
    assert tables.users["user_id"].to_pylist() == ["a\x00/..", "\U0001f600"]
    assert tables.items["title"][0].as_py() == "T" * 1000


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    bomb = gzip.compress(HEADER + b"0" * (3 * lines.MAX_LINE_BYTES))
    (tmp_path / "events.csv.gz").write_bytes(bomb)
    with pytest.raises(PipelineError, match="a line is longer than"):
        read_domain(shop(tmp_path, "csv.gz"))
