from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafters.datastore import DatastoreError, Segment
from drafters.datastore.format import separator
from drafters.datastore.segment import concatenate, prefix_array
from tests.unit.drafters.builders import SMALL, segment

DTYPES = [np.dtype("<u2"), np.dtype("<u4")]


def ordered_by_reading_backwards(tokens):
    return sorted(range(len(tokens)), key=lambda position: tokens[position::-1].tolist())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.one_of(st.integers(0, 3), st.sampled_from([255, 256, 257, 65534, 65535]))))
def test_prefix_array_orders_positions_by_what_precedes_them(dtype, values):
    tokens = np.array(values, dtype)
    assert prefix_array(tokens).tolist() == ordered_by_reading_backwards(tokens)


def test_prefix_array_compares_four_byte_tokens_by_value():
    tokens = np.array([70000, 5, 65536, 152063, 70000, 256], np.uint32)
    assert prefix_array(tokens).tolist() == ordered_by_reading_backwards(tokens)


def test_documents_come_back_as_they_went_in():
    built = segment([1, 2, 3], [], [4])
    assert [doc.token_ids.tolist() for doc in built.documents()] == [[1, 2, 3], [], [4]]
    sep = separator(SMALL)
    assert built.tokens.tolist() == [1, 2, 3, sep, sep, 4, sep]
    assert built.num_tokens == 7 and built.num_documents == 3


@pytest.mark.parametrize("ids", [[-1], [65535], [70000]])
def test_token_ids_that_the_dtype_cannot_hold_are_refused(ids):
    with pytest.raises(DatastoreError, match="token ids must lie in"):
        concatenate([np.array(ids, np.int64)], SMALL)


def test_mapped_files_keep_no_descriptor_open(tmp_path):
    entries = [segment([1, 2, 3]).write(tmp_path, "item", "g", f"{n:06d}") for n in range(20)]
    before = num_descriptors()
    opened = [Segment.open(tmp_path, entry, SMALL) for entry in entries]
    assert num_descriptors() == before
    assert [part.document(0).token_ids.tolist() for part in opened] == [[1, 2, 3]] * 20


def num_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def mappings():
    return Path("/proc/self/maps").read_text()


def test_a_mapping_lives_as_long_as_its_last_view_and_is_read_only(tmp_path):
    entry = segment(list(range(500))).write(tmp_path, "item", "g", "000000")
    view = Segment.open(tmp_path, entry, SMALL).document(0).token_ids[100:]
    assert view.tolist() == list(range(100, 500))
    assert str(tmp_path) in mappings()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    del view
    assert str(tmp_path) not in mappings()
