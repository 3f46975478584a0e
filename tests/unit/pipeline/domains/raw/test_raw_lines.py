import pytest

from pipeline.domains.raw.lines import lines_at, read_line_blocks
from pipeline.errors import DataError
from tests.line_blocks import numbered


def read(path, fallback=None, block_bytes=8):
    return numbered(read_line_blocks(path, fallback, block_bytes))


@pytest.mark.parametrize("block_bytes", [1, 3, 8, 1000])
def test_blocks_do_not_change_lines_or_numbers(tmp_path, block_bytes):
    path = tmp_path / "raw"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n\r\nthe third\n\n\xe2\x82\xac 5\nlast")
    assert read(path, None, block_bytes) == [(1, "first"), (3, "the third"), (5, "€ 5"), (6, "last")]


def test_undecodable_lines_are_null_and_the_others_are_read(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"a\nb\xff\nc\xe9\nd\n")
    assert read(path) == [(1, "a"), (2, None), (3, None), (4, "d")]
    assert read(path, "latin-1") == [(1, "a"), (2, "bÿ"), (3, "cé"), (4, "d")]


def test_surrogates_encoded_one_by_one_become_their_character_or_a_replacement(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"half \xed\xa0\xbd\npair \xed\xa0\xbd\xed\xb8\x80\n")
    assert read(path) == read(path, "cp1252") == [(1, "half \ufffd"), (2, "pair \U0001f600")]


def test_control_characters_betray_another_encoding(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"caf\x82\ncaf\xe9\n")
    assert read(path, "latin-1") == [(1, None), (2, "café")]


def test_bytes_that_the_fallback_lacks_cost_their_line(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"a\n" + b"".join(b"Tw%co\n" % byte for byte in b"\x81\x8d\x8f\x90\x9d") + b"\x80 5\n")
    assert [text for _, text in read(path, "cp1252")] == ["a", *[None] * 5, "\u20ac 5"]


def test_lines_are_found_again_by_number(tmp_path):
    path = tmp_path / "raw"
    path.write_text("a\n\nb\nc\n")
    numbers = next(iter(read_line_blocks(path))).numbers.filter([False, True, True])
    assert lines_at(path, None, numbers).to_pylist() == ["b", "c"]


def test_a_file_that_is_no_text_and_one_that_is_missing_are_named(tmp_path, monkeypatch):
    path = tmp_path / "raw"
    monkeypatch.setattr("pipeline.domains.raw.lines.MAX_LINE_BYTES", 10)
    path.write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="raw: a line is longer than 10 bytes"):
        read(path)
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        read(tmp_path / "nowhere")
