"""Finds where the end of a context occurred before. Compiled by numba, GIL released, no allocation.

A *suffix* here is the end of a request's tokens, read backwards: `suffix[0]` is the last token. In pools
a text begins after a separator, so the suffix of an output's first tokens ends with the separator too:
the beginning of a text is context like any other.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

MAX_MATCH = 32
"""Longest context that is compared, in tokens."""


@intrinsic
def _as_pointer(typing_context: Any, address: Any) -> Any:
    """An integer address as a pointer, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(inline="always")
def view_u16(address: int, length: int) -> Any:
    """The uint16 array of `length` at `address`, whose owner must outlive the call."""
    return numba.carray(_as_pointer(address), (length,), np.uint16)


@numba.njit(inline="always")
def view_u32(address: int, length: int) -> Any:
    """The uint32 array of `length` at `address`, whose owner must outlive the call."""
    return numba.carray(_as_pointer(address), (length,), np.uint32)


@numba.njit(inline="always")
def view_i32(address: int, length: int) -> Any:
    """The int32 array of `length` at `address`, whose owner must outlive the call."""
    return numba.carray(_as_pointer(address), (length,), np.int32)


@numba.njit(nogil=True, cache=True)
def match_length(tokens: Any, position: int, suffix: Any, suffix_length: int, known: int = 0) -> int:
    """How many tokens of `suffix` the text that ends at `position` shares; `known` of them without a look."""
    length = known
    limit = min(suffix_length, position + 1)
    while length < limit and tokens[position - length] == suffix[length]:
        length += 1
    return length


@numba.njit(nogil=True, cache=True)
def _insertion_rank(tokens: Any, index: Any, suffix: Any, suffix_length: int) -> int:
    """First rank in `index` whose text, read backwards, does not sort before `suffix`."""
    low, high = 0, len(index)
    shared_below = shared_above = 0  # what lies between shares as much as both bounds (Manber & Myers 1993)
    while low < high:
        middle = (low + high) >> 1
        position = index[middle]
        known = min(shared_below, shared_above)
        shared = match_length(tokens, position, suffix, suffix_length, known)
        if shared == suffix_length:
            before = False
        elif shared > position:  # the text began here: the shorter one sorts first
            before = True
        else:
            before = tokens[position - shared] < suffix[shared]
        if before:
            low, shared_below = middle + 1, shared
        else:
            high, shared_above = middle, shared
    return low


@numba.njit(nogil=True, cache=True)
def nearest(tokens: Any, index: Any, suffix: Any, suffix_length: int, positions: Any, lengths: Any) -> int:
    """The occurrences that share most of `suffix`, longest first; fills both arrays, returns how many.

    Cost: one binary search over `index`, then one step for each neighbour.
    """
    upper = _insertion_rank(tokens, index, suffix, suffix_length)
    lower = upper - 1
    size, found = len(index), 0
    above = match_length(tokens, index[upper], suffix, suffix_length) if upper < size else 0
    below = match_length(tokens, index[lower], suffix, suffix_length) if lower >= 0 else 0
    while found < len(positions) and (above > 0 or below > 0):
        if above >= below:
            positions[found], lengths[found] = index[upper], above
            upper += 1
            above = match_length(tokens, index[upper], suffix, suffix_length) if upper < size else 0
        else:
            positions[found], lengths[found] = index[lower], below
            lower -= 1
            below = match_length(tokens, index[lower], suffix, suffix_length) if lower >= 0 else 0
        found += 1
    return found


@numba.njit(nogil=True, cache=True)
def nearest_by_scan(
    tokens: Any, num_tokens: int, suffix: Any, suffix_length: int, positions: Any, lengths: Any
) -> int:
    """As `nearest`, for the first `num_tokens` of a short text without an index: compares every position.

    Among equals the later occurrence is kept. Cost: `num_tokens` comparisons, vectorized.
    """
    found = 0
    capacity = len(positions)
    if suffix_length == 0:
        return 0
    for position in range(num_tokens - 1, -1, -1):
        if tokens[position] != suffix[0]:
            continue
        length = match_length(tokens, position, suffix, suffix_length)
        if found == capacity and lengths[found - 1] >= length:
            continue
        slot = found if found < capacity else found - 1
        while slot > 0 and lengths[slot - 1] < length:
            positions[slot], lengths[slot] = positions[slot - 1], lengths[slot - 1]
            slot -= 1
        positions[slot], lengths[slot] = position, length
        found = min(found + 1, capacity)
    return found
