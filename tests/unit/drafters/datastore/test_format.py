import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from drafters.datastore import DatastoreError, StoreHeader
from drafters.datastore.format import SegmentEntry, entity_key, separator, token_dtype


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(2, "<u2"), (65535, "<u2"), (65536, "<u4"), (152064, "<u4")]
)
def test_dtype_holds_every_token_and_the_separator(vocab_size, dtype):
    assert token_dtype(vocab_size) == np.dtype(dtype)
    assert separator(token_dtype(vocab_size)) > vocab_size - 1


def test_entity_key_is_stable_across_processes_and_64_bits():
    assert entity_key("movie-1") == 0x8D08BA0B1E1B55B1
    assert entity_key("movie-1") != entity_key("movie-2")


def write(tmp_path, **changes):
    header = StoreHeader("v1", 1000, "tok", "run", (SegmentEntry("item", "g", "000000", 5, 1, {}),))
    raw = json.loads(header.to_json()) | changes
    (tmp_path / "header.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))
    return header


def test_header_round_trip(tmp_path):
    assert write(tmp_path) == StoreHeader.read(tmp_path)


@pytest.mark.parametrize("cutoff", [datetime(1998, 4, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_the_header_keeps_what_its_texts_saw(tmp_path, cutoff):
    header = replace(write(tmp_path), history_cutoff=cutoff)
    (tmp_path / "header.json").write_text(header.to_json())
    assert StoreHeader.read(tmp_path) == header


def test_the_header_of_an_earlier_release_does_not_know_it(tmp_path):
    write(tmp_path, history_cutoff=None)  # left out
    assert StoreHeader.read(tmp_path).history_cutoff is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 2}, "format version 2, not 1"),
        ({"dtype": "<u4"}, "does not fit a vocabulary of 1000"),
        ({"dtype": "nonsense"}, "unreadable header"),
        ({"segments": None}, "unreadable header"),
        ({"history_cutoff": "yesterday"}, "unreadable header"),
        ({"history_cutoff": 1998}, "unreadable header"),
        ({"colour": "red"}, "unreadable header"),
        ({"segments": [{"kind": "item"}]}, "unreadable header"),
    ],
)
def test_a_bad_header_is_refused_by_name(tmp_path, changes, reason):
    write(tmp_path, **changes)
    with pytest.raises(DatastoreError, match=reason) as caught:
        StoreHeader.read(tmp_path)
    assert str(tmp_path / "header.json") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_garbage_for_a_header(tmp_path, content):
    (tmp_path / "header.json").write_bytes(content)
    with pytest.raises(DatastoreError, match=r"header\.json: unreadable"):
        StoreHeader.read(tmp_path)
