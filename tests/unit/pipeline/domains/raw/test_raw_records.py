import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domains.raw.failures import CONTENT, LINE, FailureLog
from pipeline.domains.raw.records import JsonKeys, parse_json, read_json_rows, read_parquet_rows
from pipeline.domains.raw.sources import Source
from pipeline.domains.raw.texts import MAX_DEPTH, as_texts
from pipeline.errors import DataError


def read(path, *records):
    path.write_text("".join(record + "\n" for record in records))
    log = FailureLog(Source(str(path)))
    tables = list(read_json_rows(Source(str(path)), {"value": "v"}, log, JsonKeys(["v"])))
    assert sum(table.num_rows for table in tables) + log.num_bad == log.num_rows == len(records)
    rows = [
        pair
        for table in tables
        for pair in zip(table[LINE].to_pylist(), table["value"].to_pylist(), strict=True)
    ]
    return rows, [(row["line"], row["reason"]) for row in log.table().to_pylist()]


def nested(depth, opening="[", closing="]"):
    return f'{{"v": {opening * depth}1{closing * depth}}}'


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_a_value_nested_deep_is_a_bad_row(tmp_path, pair):
    deep = [nested(depth, *pair) for depth in (MAX_DEPTH, MAX_DEPTH + 2, 400, 900)]
    rows, bad = read(tmp_path / "x.jsonl", *deep, '{"v": 1}', nested(100_000, *pair))
    reason = "a value is nested more than 100 deep"
    assert [line for line, _ in rows] == [1, 5]
    assert bad == [(line, reason) for line in (2, 3, 4, 6)]


def test_numbers_that_json_lacks(tmp_path):
    values = (float("nan"), float("inf"), -float("inf"), "NaN", 1)
    rows, bad = read(
        tmp_path / "x.jsonl", *(json.dumps({"v": value}) for value in values), "{NaN}", "NaN", "[NaN]"
    )
    assert [text for _, text in rows] == [None, "inf", "-inf", "NaN", "1"]
    no_key = "not a JSON object: expecting property name enclosed in double quotes at character 2"
    assert bad == [(6, no_key), (7, "not a JSON object"), (8, "not a JSON object")]
    assert parse_json('{"a": NaN') is None


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (r"Half \ud83d", "Half \ufffd"),
        (r"\udc00 and \ud83d\ude00", "\ufffd and \U0001f600"),
        ("a\ttab", "a\ttab"),
    ],
)
@pytest.mark.parametrize("beside", ["", ', "price": NaN', ', "price": 1e999'])
def test_lone_surrogates_and_raw_tabs_keep_their_row(tmp_path, text, read_as, beside):
    rows, bad = read(tmp_path / "x.jsonl", f'{{"v": "{text}"{beside}}}')
    assert (rows, bad) == ([(1, read_as)], [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (r'"\ud83d"', None),
        ("1e999", None),
        ("1" * 5000, None),
        ("-Infinity", None),
        (r'"it\'s"', "a value is not JSON: invalid \\escape at character 4"),
        ('"\\u12"', "a value is not JSON: invalid \\uXXXX escape at character 3"),
        ("01", "a value is not JSON: extra data at character 2"),
        ("[" * 100_000 + "]" * 100_000, "a value is nested more than 100 deep"),
        (b'"caf\xe9"', "bytes that do not decode as text"),
    ],
)
def test_a_value_costs_its_row_only_where_it_is_read(tmp_path, value, reason):
    value = value.encode() if isinstance(value, str) else value
    path = tmp_path / "x.jsonl"
    lines = [b'{"other": ' + value + b', "v": "kept"}', b'{"other": {"v": 1}, "v": ' + value + b"}"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    source, log = Source(str(path)), FailureLog(Source(str(path)))
    [table] = read_json_rows(source, {"value": "v"}, log, JsonKeys(["v"]))
    assert table["value"][0].as_py() == "kept"
    assert table.column_names == ["value", LINE, CONTENT]
    bad = [(row["line"], row["reason"]) for row in log.table().to_pylist()]
    assert bad == ([] if reason is None else [(2, reason)])


ARRAY = "not a JSON object, but a JSON array; write each of its objects on one line (`jq -c .[]` does)"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["v"]', "not a JSON object"),
        ("null", "not a JSON object"),
        ("[", ARRAY),
        ('[{"v": 1}, {"v": 2}]', ARRAY),
        (r'{"v": "\ud83d"', "not a JSON object: expecting ',' delimiter at character 15"),
        ('{"v" 1}', "not a JSON object: expecting ':' delimiter at character 6"),
        ('{"v": 1} {"v": 2}', "not a JSON object: extra data at character 10"),
        ('{"v": "cut', "not a JSON object: unterminated string starting at character 7"),
        ("v,1", "not a JSON object: expecting value at character 1"),
    ],
)
def test_the_reason_of_a_bad_line_is_its_true_cause(tmp_path, line, reason):
    assert read(tmp_path / "x.jsonl", line, '{"v": 1}') == ([(2, "1")], [(1, reason)])


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "", "\u00e9"],
        ["a", "\ud800"],
        [1, None, -(2**63), 2**63 - 1],
        [1, 2**63, 10**5000],
        [1, 1.0, 0.5, -0.0, 0.0, 1e300, 2.0**53, 2**53 + 1, None],
        [True, 1, 0, False],
        [True, False, None],
        [[1, None, "a"], {"a": [1], "b": None, "\ud800": 1}],
        [None, None],
        [],
    ],
)
def test_columns_of_one_kind_are_read_as_single_values_are(values):
    texts, deep = as_texts(values)
    assert not deep.any()
    single = [as_texts([[value], value])[0][1].as_py() for value in values]
    assert texts.to_pylist() == single


def read_parquet(path, column):
    pq.write_table(pa.table({"v": column}), path)
    source = Source(str(path))
    return pa.concat_tables(read_parquet_rows(source, {"value": "v"}, FailureLog(source)))["value"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.parquet", b"v\n1\n", "this looks like text; write `format: csv`, `tsv` or `jsonl`"),
        ("x.parquet", gzip.compress(b"v\n1\n", mtime=0), "this is gzip data"),
        ("x.parquet.gz", b"v\n1\n", "its name ends with .gz, but it is not compressed; rename it"),
        ("x.parquet", b"PAR1\x15cut", "Parquet magic bytes not found in footer"),
        ("x.parquet", b"", "Parquet file size is 0 bytes"),
    ],
)
def test_what_is_no_parquet_is_named(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    source = Source(str(tmp_path / name))
    with pytest.raises(DataError, match=re.escape(f"{name}: not a readable Parquet file: {reason}")):
        list(read_parquet_rows(source, {"value": "v"}, FailureLog(source)))


LARGEST = 2**63 - 1
TIMES = [  # Parquet has no seconds: they are stored as milliseconds
    (pa.timestamp("s"), 1, 10**15, None),
    (pa.timestamp("ms", "UTC"), 1_000, LARGEST, None),
    (pa.timestamp("us"), 10**6, LARGEST, LARGEST),
    (pa.timestamp("ns"), 10**9, LARGEST, LARGEST // 1000),
]


@pytest.mark.parametrize(("kind", "one_second", "far", "far_micros"), TIMES)
def test_times_keep_their_meaning_and_none_wraps(tmp_path, kind, one_second, far, far_micros):
    column = pa.array([one_second, None, -one_second, far]).cast(kind)
    micros = read_parquet(tmp_path / "x.parquet", column).cast(pa.int64()).to_pylist()
    assert micros == [10**6, None, -(10**6), far_micros]


@pytest.mark.parametrize(("kind", "day"), [(pa.date32(), 1), (pa.date64(), 86_400_000)])
def test_days_keep_their_meaning_and_none_wraps(tmp_path, kind, day):
    column = pa.array([day, -day, (2**31 - 1) * day], pa.int64() if day > 1 else pa.int32()).cast(kind)
    micros = read_parquet(tmp_path / "x.parquet", column).cast(pa.int64()).to_pylist()
    assert micros == [86_400_000_000, -86_400_000_000, None]


def test_large_rows_are_decoded_a_few_at_a_time(tmp_path):
    column = pa.array([f"{number}" * 2**20 for number in range(200)])
    pq.write_table(pa.table({"v": column}), tmp_path / "x.parquet", use_dictionary=False)
    source = Source(str(tmp_path / "x.parquet"))
    batches = list(read_parquet_rows(source, {"value": "v"}, FailureLog(source)))
    assert len(batches) > 5 and sum(batch.num_rows for batch in batches) == 200
