import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafters.datastore.format import separator
from drafters.datastore.segment import concatenate, prefix_array
from drafters.retrieval.search import MAX_MATCH, nearest, nearest_by_scan, view_i32, view_u16, view_u32

DTYPES = [np.dtype("<u2"), np.dtype("<u4")]
IDS = st.integers(0, 3)
TEXTS = st.lists(st.lists(IDS, max_size=12), min_size=1, max_size=8)
SUFFIXES = st.lists(IDS, min_size=1, max_size=10)


def shared(tokens, position, suffix):
    length = 0
    while length < min(len(suffix), position + 1) and tokens[position - length] == suffix[length]:
        length += 1
    return length


def search(find, suffix, capacity, *arrays):
    positions, lengths = np.full(capacity, -1, np.int64), np.full(capacity, -1, np.int64)
    padded = np.full(MAX_MATCH, -7, np.int64)
    padded[: len(suffix)] = suffix
    found = find(*arrays, padded, len(suffix), positions, lengths)
    return positions[:found].tolist(), lengths[:found].tolist()


def pool(texts, dtype):
    tokens, _ = concatenate([np.array(text, np.int64) for text in texts], dtype)
    return tokens, prefix_array(tokens)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, suffix=SUFFIXES, at_start=st.booleans(), capacity=st.integers(1, 40))
def test_nearest_agrees_with_brute_force(dtype, texts, suffix, at_start, capacity):
    tokens, index = pool(texts, dtype)
    if at_start:
        suffix = [*suffix, separator(dtype)]
    positions, lengths = search(nearest, suffix, capacity, tokens, index)
    every = [shared(tokens, position, suffix) for position in range(len(tokens))]
    assert lengths == sorted([n for n in every if n], reverse=True)[:capacity]
    assert [every[position] for position in positions] == lengths
    assert len(set(positions)) == len(positions)


@settings(max_examples=150, deadline=None)
@given(text=st.lists(IDS, max_size=40), suffix=SUFFIXES, capacity=st.integers(1, 12), data=st.data())
def test_scan_agrees_with_brute_force_and_prefers_later_text(text, suffix, capacity, data):
    tokens = np.array(text, np.int32)
    size = data.draw(st.integers(0, len(text)))
    positions, lengths = search(nearest_by_scan, suffix, capacity, tokens, size)
    every = [(shared(tokens, position, suffix), position) for position in range(size)]
    assert (
        list(zip(lengths, positions, strict=True))
        == sorted([e for e in every if e[0]], reverse=True)[:capacity]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_beginning_of_a_text_is_context(dtype):
    tokens, index = pool([[9, 9], [1, 2], [5, 1, 3]], dtype)
    sep = separator(dtype)
    positions, lengths = search(nearest, [1, sep], 4, tokens, index)
    assert lengths == [2, 1]
    assert tokens[positions[0] + 1] == 2, "the text that begins with it comes first"


def test_a_match_does_not_reach_into_the_text_before():
    tokens, index = pool([[4, 5], [6]], DTYPES[0])
    _, lengths = search(nearest, [6, 5, 4], 4, tokens, index)
    assert lengths == [1]


def test_nothing_is_found_for_an_empty_suffix_an_unknown_token_or_an_empty_pool():
    tokens, index = pool([[1, 2, 3]], DTYPES[0])
    assert search(nearest, [], 4, tokens, index) == ([], [])
    assert search(nearest, [70000], 4, tokens, index) == ([], [])
    assert search(nearest, [1], 4, tokens[:0], index[:0]) == ([], [])
    assert search(nearest_by_scan, [], 4, np.array([-7, -7], np.int32), 2) == ([], [])


@pytest.mark.parametrize(
    ("view", "dtype"),
    [(view_u16, np.uint16), (view_u32, np.uint32), (view_i32, np.int32)],
    ids=["uint16", "uint32", "int32"],
)
def test_views_read_the_array_at_an_address(view, dtype):
    import numba

    array = np.array([1, 2, np.iinfo(dtype).max], dtype)
    total = numba.njit(lambda address, length: view(address, length).astype(np.int64).sum())
    assert total(array.ctypes.data, 3) == int(array.astype(np.int64).sum())
