"""Passes over a row of logits on a CPU, compiled so that they are vectorized.

torch's argmax reads a row of 49,152 logits in about 100 us of one core, its comparison with a bound and the
sum of that in 400; these take 2 to 20.
"""

from typing import Any

import numba
import numpy as np
import torch

BLOCK = 2048  # values that are searched at once
REORDERED = {"reassoc", "nsz", "contract"}  # what vectorizes a sum; infinite logits, which mask, stay exact
LOWEST = np.int32(-(2**31))
LOG2_E = np.float32(1.4426950408889634)
LEAST_POWER = np.float32(-126.0)  # 2**x of anything less is no normal float32
# Taylor series of 2**x; on [-0.5, 0.5] its error is below 3e-6.
EXP2_SERIES = tuple(np.float32(np.log(2.0) ** n / divisor) for n, divisor in enumerate((1, 1, 2, 6, 24, 120)))


@numba.njit(nogil=True, cache=True, inline="always")
def _as_sortable(bits: Any) -> Any:
    """An integer that sorts as the float32 with these bits does."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@numba.njit(nogil=True, cache=True)
def _highest(bits: Any) -> Any:
    highest = LOWEST
    for i in range(len(bits)):
        highest = max(highest, _as_sortable(bits[i]))
    return highest


@numba.njit(nogil=True, cache=True)
def argmax(bits: Any) -> int:
    """Index of the largest float32 of those whose bits these are, the first of equals."""
    best, best_start = LOWEST, 0
    for start in range(0, len(bits), BLOCK):
        highest = _highest(bits[start : start + BLOCK])
        if highest > best:
            best, best_start = highest, start
    for i in range(best_start, len(bits)):
        if _as_sortable(bits[i]) == best:
            return i
    return 0


@numba.njit(nogil=True, cache=True, fastmath=REORDERED)
def num_above(values: Any, bound: Any) -> int:
    """How many of `values`, at most 2**24, are above `bound`."""
    count = np.float32(0.0)
    for i in range(len(values)):
        count += np.float32(1.0) if values[i] > bound else np.float32(0.0)
    return int(count)


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def exp(values: Any, highest: Any, result: Any) -> None:
    """exp(value - highest), for values that are not above it."""
    c0, c1, c2, c3, c4, c5 = EXP2_SERIES
    for i in range(len(values)):
        power = (values[i] - highest) * LOG2_E
        power = power if power > LEAST_POWER else LEAST_POWER
        whole = np.int32(power - np.float32(0.5))  # to the nearest: it is not above 0
        rest = power - np.float32(whole)
        scale = np.int32(np.int32(whole + np.int32(127)) << np.int32(23)).view(np.float32)
        result[i] = scale * (c0 + rest * (c1 + rest * (c2 + rest * (c3 + rest * (c4 + rest * c5)))))


@numba.njit(nogil=True, cache=True, fastmath=REORDERED)
def total(values: Any) -> Any:
    """Sum of `values`."""
    sum_ = np.float32(0.0)
    for i in range(len(values)):
        sum_ += values[i]
    return sum_


@numba.njit(nogil=True, cache=True)
def penalize(row: Any, shift: int, tokens: Any, penalty: Any, bits: Any) -> None:
    """Write `row` as float32 bits, with the repetition penalty of vLLM's sampler on `tokens`."""
    for i in range(len(bits)):
        bits[i] = np.int32(np.int32(row[i]) << np.int32(shift))
    values = bits.view(np.float32)
    if penalty != np.float32(1.0):
        inverse = np.float32(1.0) / penalty
        for token in tokens:
            value = values[token]
            values[token] = value * (inverse if value > np.float32(0.0) else penalty)


@numba.njit(nogil=True, cache=True)
def _argmax_rows(bits: Any, result: Any) -> None:
    for row in range(len(bits)):
        result[row] = argmax(bits[row])


def greedy_tokens(logits: torch.Tensor) -> torch.Tensor:
    """Argmax of each row, the first of equals: int64 [rows] of float32 `logits` [rows, vocab] on a CPU."""
    result = np.empty(len(logits), np.int64)
    _argmax_rows(logits.contiguous().view(torch.int32).numpy(), result)
    return torch.from_numpy(result)
