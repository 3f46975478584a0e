import csv

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domains.raw.fields import field_columns, split_fields
from pipeline.domains.raw.quotes import Quoting
from tests.fuzzing import FUZZED

VALUES = st.text(st.sampled_from('ab",;\\\n\r\x00\ufeff\u00e9 '), max_size=6)
ROWS = st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=8)
NOISE = st.lists(st.text(st.sampled_from('ab",;\\\r\ufeff'), min_size=1, max_size=12), min_size=1, max_size=8)
ESCAPES = st.sampled_from([None, "\\", ";"])


def written(values: list[str], always_quoted: bool = True) -> str:
    return ",".join(
        '"' + value.replace('"', '""') + '"' if always_quoted or set(value) & set('",\n\r') else value
        for value in values
    )


def test_separators_of_many_characters():
    lines = pa.array(["1::a:b::2", "::x", ""])
    assert split_fields(lines, "::").to_pylist() == [["1", "a:b", "2"], ["", "x"], [""]]


@pytest.mark.parametrize("separator", ["::", '"', "\n", "\r"])
def test_some_separators_leave_no_room_for_quotes(separator):
    assert Quoting.of(separator, None) is None


@pytest.mark.parametrize("num_fields", [None, 2, 3])
def test_quotes_follow_csv_and_keep_the_order_of_lines(num_fields):
    lines = pa.array(["1,a", '2,"b, c"', "3,d", '4,"say ""e"""', '5,"open', '6,7" disk', None, '7,"x",""'])
    assert split_fields(lines, ",", Quoting(","), num_fields).to_pylist() == [
        ["1", "a"],
        ["2", "b, c"],
        ["3", "d"],
        ["4", 'say "e"'],
        None,
        ["6", '7" disk'],
        None,
        ["7", "x", ""],
    ]
    assert split_fields(lines[1:2], ",").to_pylist() == [["2", '"b', ' c"']]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (r'"1";"AC\DC"', ["1", r"AC\DC"]),
        (r"1;AC\DC", ["1", r"AC\DC"]),
        (r'"1";"The \"Owl\""', ["1", 'The "Owl"']),
        (r"1;\"Owl\"", ["1", '"Owl"']),
        (r"1;C:\\dir\\", ["1", "C:\\dir\\"]),
        (r'1;"C:\\"', ["1", "C:\\"]),
        (r"1;a\;b", ["1", "a;b"]),
        (r'1;"a\;b"', ["1", "a;b"]),
        ("1;end\\", ["1", "end\\"]),
        (r'1;"open\"', None),
    ],
)
def test_an_escape_is_one_before_quote_separator_and_itself_only(line, fields):
    assert split_fields(pa.array([line]), ";", Quoting(";", "\\"), 2).to_pylist() == [fields]


@FUZZED
@given(ROWS, st.booleans(), ESCAPES)
def test_what_is_written_is_read(rows, always_quoted, escape):
    written_rows = [written(values, always_quoted) for values in rows]
    if escape is not None:
        written_rows = [row.replace(escape, escape * 2) for row in written_rows]
    lines = pa.array([row or '""' for row in written_rows])
    for num_fields in (None, 1, 2, 3):
        assert split_fields(lines, ",", Quoting(",", escape), num_fields).to_pylist() == rows


@FUZZED
@given(NOISE, ESCAPES, st.integers(1, 4))
def test_both_roads_read_the_same(noise, escape, num_fields):
    lines = pa.array(noise)
    expected = split_fields(lines, ",", Quoting(",", escape))
    assert split_fields(lines, ",", Quoting(",", escape), num_fields).equals(expected)


@FUZZED
@given(NOISE)
def test_one_line_is_read_as_python_reads_it(noise):
    for line in filter(None, (text.replace("\r", "") for text in noise)):
        try:
            expected = next(csv.reader([line], strict=True))
        except csv.Error:
            expected = None
        assert split_fields(pa.array([line]), ",", Quoting(","), 2).to_pylist() == [expected]


def test_columns_by_position():
    fields = pa.array([["a", "b", "c"], ["d", "e", "f"]])
    assert [column.to_pylist() for column in field_columns(fields, 3, (2, 0))] == [["c", "f"], ["a", "d"]]
