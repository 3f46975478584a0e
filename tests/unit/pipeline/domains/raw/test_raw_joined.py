import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domains.raw.fields import split_fields
from pipeline.domains.raw.joined import join_records
from pipeline.domains.raw.lines import read_line_blocks
from pipeline.domains.raw.quotes import Quoting
from tests.fuzzing import FUZZED
from tests.line_blocks import numbered


def read(path, block_bytes=8, max_bytes=1000, escape=None):
    blocks = read_line_blocks(path, None, block_bytes)
    return numbered(join_records(blocks, Quoting(",", escape), max_bytes))


@pytest.mark.parametrize("block_bytes", [1, 3, 8, 1000])
def test_a_quoted_value_may_span_lines(tmp_path, block_bytes):
    path = tmp_path / "raw"
    path.write_bytes(b'a,b\n1,"x\n2,forged\n\n\r\ny",3\n\n4,"p""\n5,q"\n"z\n","\n"\nlast')
    assert read(path, block_bytes) == [
        (1, "a,b"),
        (2, '1,"x\n2,forged\n\n\ny",3'),
        (8, '4,"p""\n5,q"'),
        (10, '"z\n","\n"'),
        (13, "last"),
    ]


@pytest.mark.parametrize("block_bytes", [1, 3, 8, 1000])
def test_a_stray_quote_costs_its_own_line(tmp_path, block_bytes):
    path = tmp_path / "raw"
    path.write_text('1,"stray\n2,b\n3,"c, d"\n4,"last\n5,e\n')
    lines = [(1, '1,"stray'), (2, "2,b"), (3, '3,"c, d"'), (4, '4,"last'), (5, "5,e")]
    assert read(path, block_bytes) == lines


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
@pytest.mark.parametrize("middle", ["x\n" * 30, "\n" * 60])
def test_a_quote_that_is_not_closed_soon_is_stray(tmp_path, block_bytes, middle):
    path = tmp_path / "raw"
    path.write_text(f'1,"stray\n{middle}2,b"\n3,"c\nd"\n')
    found = read(path, block_bytes, max_bytes=50)
    assert found[0] == (1, '1,"stray') and found[-1][1] == '3,"c\nd"'
    assert len(found) == 3 + middle.count("x")
    assert len(read(path, block_bytes, max_bytes=100)) == 2


def test_many_quotes_that_never_close_are_no_long_way(tmp_path):
    path = tmp_path / "raw"
    path.write_text('x",y,"z\n' * 200_000)
    assert len(read(path, 1 << 20, max_bytes=1 << 20)) == 200_000


@pytest.mark.parametrize("block_bytes", [1, 8, 1000])
def test_a_line_of_wrong_bytes_costs_the_record_that_it_stands_in(tmp_path, block_bytes):
    path = tmp_path / "raw"
    path.write_bytes(b'1,"a\n2,\xff\nb"\n\xff,"c\n3,forged\nd"\n4,e\n')
    assert read(path, block_bytes) == [(1, None), (4, None), (7, "4,e")]


@FUZZED
@given(
    st.lists(
        st.lists(st.text(st.sampled_from('ab",\n\x00\u00e9'), max_size=8), min_size=1, max_size=3), max_size=8
    ),
    st.sampled_from([1, 5, 64, 10_000]),
)
def test_what_is_written_is_read_whatever_the_blocks(tmp_path, rows, block_bytes):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path = tmp_path / "raw"
    path.write_text(text.getvalue(), newline="")
    quoting = Quoting(",")
    found = []
    for block in join_records(read_line_blocks(path, None, block_bytes), quoting):
        found.extend(split_fields(block.text, ",", quoting, 2).to_pylist())
    assert found == rows


@FUZZED
@given(st.text(st.sampled_from('ab",\n\\'), max_size=60), st.sampled_from([None, "\\"]))
def test_blocks_change_nothing_and_no_line_is_lost(tmp_path, text, escape):
    path = tmp_path / "raw"
    path.write_text(text, newline="")
    whole = read(path, 10_000, 20, escape)
    for block_bytes in (1, 4, 9):
        assert read(path, block_bytes, 20, escape) == whole
    lines = [line for line in text.split("\n") if line]
    assert [line for _, record in whole for line in record.split("\n") if line] == lines
