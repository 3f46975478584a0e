import pyarrow as pa

from pipeline.domains.raw.fields import field_columns, split_fields


def test_separators_of_many_characters():
    lines = pa.array(["1::a:b::2", "::x", ""])
    assert split_fields(lines, "::", quoted=False).to_pylist() == [["1", "a:b", "2"], ["", "x"], [""]]


def test_quotes_follow_csv_and_keep_the_order_of_lines():
    lines = pa.array(["1,a", '2,"b, c"', "3,d", '4,"say ""e"""', '5,"open', '6,7" disk', None])
    assert split_fields(lines, ",", quoted=True).to_pylist() == [
        ["1", "a"],
        ["2", "b, c"],
        ["3", "d"],
        ["4", 'say "e"'],
        None,
        ["6", '7" disk'],
        None,
    ]
    assert split_fields(lines[1:2], ",", quoted=False).to_pylist() == [["2", '"b', ' c"']]


def test_columns_by_position():
    fields = pa.array([["a", "b", "c"], ["d", "e", "f"]])
    assert [column.to_pylist() for column in field_columns(fields, 3, (2, 0))] == [["c", "f"], ["a", "d"]]
