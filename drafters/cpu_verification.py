"""Greedy verification of a step's drafts on a CPU, in one native call, row by row up to each rejection.

vLLM's rejection sampler passes over [rows, vocab] about ten times, for every drafted position. Here a
request's rows are read one after the other, as in decoding token by token, and what lies behind the first
rejected draft token is never touched: a step costs what the tokens cost that it writes. Penalties, argmax
and the acceptance rule are those of the sampler and of `drafters.acceptance`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from drafters.acceptance import AcceptanceRule
from drafters.cpu_logits import argmax, exp, num_above, penalize, total

NO_TOKEN = -1  # vLLM's placeholder: for a draft that is none, and behind the last accepted token
VERIFIED_DTYPES = (torch.bfloat16, torch.float32)
ROWS_PER_THREAD = 8
BFLOAT16_SHIFT = 16  # a bfloat16 is the upper half of a float32


@numba.njit(nogil=True, cache=True)
def _add_distinct(tokens: Any, seen: Any, mark: int, distinct: Any, count: int) -> int:
    """Append to `distinct` what of `tokens` was not seen before under `mark`."""
    for token in tokens:
        if 0 <= token < len(seen) and seen[token] != mark:
            seen[token] = mark
            distinct[count] = token
            count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _is_acceptable(values: Any, highest: Any, token: int, top_k: int, min_prob: float, terms: Any) -> bool:
    """LASER's relaxed rule; see `drafters.acceptance.relaxed_matches`."""
    odds = np.exp(np.float64(values[token] - highest))  # to the first choice
    if odds <= min_prob or num_above(values, values[token]) >= top_k:
        return False
    exp(values, highest, terms)
    return odds > min_prob * total(terms)


@numba.njit(nogil=True, cache=True)
def _is_confirmed(
    rows: Any,
    shift: int,
    draft: Any,
    first: int,
    last: int,
    distinct: Any,
    count: int,
    penalty: Any,
    bits: Any,
) -> bool:
    """Whether the draft tokens `first` to `last` exist and are all the argmax; see `deferred_tokens`."""
    if last > len(draft):
        return False
    known = count
    for i in range(first, last):
        penalize(rows[i], shift, distinct[:known], penalty, bits)
        if argmax(bits) != draft[i]:
            return False
        if not (distinct[:known] == draft[i]).any():
            distinct[known] = draft[i]
            known += 1
    return True


@numba.njit(nogil=True, cache=True)
def _verify_draft(
    rows: Any,  # bits [drafted + 1, vocab]
    shift: int,
    draft: Any,  # int32 [drafted]
    penalty: Any,
    num_distinct: int,  # tokens of the context, in the work space
    rule: Any,  # top_k, min_prob, max_relaxed_run, deferred_tokens, stop tokens
    work: Any,
    mark: int,
    output: Any,  # int32 [at least drafted + 1]
    relaxed: Any,  # bool [drafted]
) -> None:
    """Write the tokens that one request gets."""
    top_k, min_prob, max_run, num_deferred, stops = rule
    seen, distinct, bits, terms = work
    values = bits.view(np.float32)
    count, run = num_distinct, 0
    for i in range(len(draft)):
        penalize(rows[i], shift, distinct[:count], penalty, bits)
        token, choice = draft[i], argmax(bits)
        run = 0 if token == choice else run + 1
        is_relaxed = (
            run > 0
            and top_k > 1
            and token != NO_TOKEN
            and (max_run == 0 or run <= max_run)
            and not ((stops == token) | (stops == choice)).any()
            and _is_acceptable(values, values[choice], token, top_k, min_prob, terms)
        )
        count = _add_distinct(draft[i : i + 1], seen, mark, distinct, count)
        if is_relaxed and num_deferred > 0:
            behind = i + 1 + num_deferred
            is_relaxed = _is_confirmed(rows, shift, draft, i + 1, behind, distinct, count, penalty, bits)
        relaxed[i] = is_relaxed
        if run > 0 and not is_relaxed:
            output[i] = choice
            return
        output[i] = token
    penalize(rows[len(draft)], shift, distinct[:count], penalty, bits)
    output[len(draft)] = argmax(bits)


@numba.njit(nogil=True, cache=True)
def _verify_drafts(
    first: int,
    last: int,
    logits: Any,  # int16 or int32 bits [num_drafts + requests, vocab]: each request's drafts, then its bonus
    shift: int,
    context: Any,  # int32 [requests, max_len]
    num_tokens: Any,  # [requests] of the context
    penalties: Any,  # float32 [requests]
    ends: Any,  # [requests + 1] where each request's drafts end in `drafts`, after a 0
    drafts: Any,  # int32 [num_drafts]
    rules: Any,  # the arrays of `_rule_table`
    work: Any,  # those of `_work_space`
    mark: int,  # nothing was seen under this mark and those behind it
    output: Any,  # int32 [requests, longest draft + 1]
    relaxed: Any,  # bool [num_drafts]
) -> None:
    """Verify the drafts of the requests `first` to `last`."""
    top_k, min_prob, max_run, num_deferred, stops = rules
    for request in range(first, last):
        start, end = ends[request], ends[request + 1]
        text = context[request, : num_tokens[request]]
        _verify_draft(
            logits[start + request : end + request + 1],
            shift,
            drafts[start:end],
            penalties[request],
            _add_distinct(text, work[0], mark + request, work[1], 0),
            (top_k[request], min_prob[request], max_run[request], num_deferred[request], stops[request]),
            work,
            mark + request,
            output[request],
            relaxed[start:end],
        )


def _work_space(vocab_size: int) -> tuple[npt.NDArray[Any], ...]:
    """What a thread needs besides its rows: marks of tokens, distinct tokens, a row's bits and terms."""
    return (
        np.full(vocab_size, -1, np.int64),
        np.empty(vocab_size, np.int32),
        np.empty(vocab_size, np.int32),
        np.empty(vocab_size, np.float32),
    )


@dataclass(frozen=True)
class StepDrafts:
    """What a step verifies, by request."""

    tokens: npt.NDArray[np.int32]  # [num_drafts], of all requests one after the other; NO_TOKEN is refused
    num_tokens: Sequence[int]  # [requests] drafted
    context: npt.NDArray[np.int32]  # [at least requests, max_len]
    context_lengths: npt.NDArray[Any]  # [at least requests]
    penalties: npt.NDArray[np.float32]  # [requests] of repetition; 1: none
    rules: Sequence[AcceptanceRule]  # [requests]


class CpuVerifier:
    """Verifies greedy requests; keeps its threads and their memory from step to step."""

    def __init__(self) -> None:
        self._num_threads = min(8, len(os.sched_getaffinity(0)))
        self._executor = ThreadPoolExecutor(self._num_threads)
        self._work: list[tuple[npt.NDArray[Any], ...]] = []
        self._mark = 0

    def verify(self, logits: torch.Tensor, drafts: StepDrafts) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that each request writes, and which draft tokens were taken though not the argmax.

        `logits` bfloat16 or float32 [num_drafts + requests, vocab]. Returns int32 [requests, longest draft
        + 1], padded with NO_TOKEN, and bool [num_drafts], false behind the first rejection.
        """
        num_requests, vocab_size = len(drafts.num_tokens), logits.shape[1]
        ends = np.concatenate(([0], np.cumsum(drafts.num_tokens)))
        output = np.full((num_requests, max(drafts.num_tokens) + 1), NO_TOKEN, np.int32)
        relaxed = np.zeros(len(drafts.tokens), np.bool_)
        is_half = logits.dtype == torch.bfloat16
        bits = logits.contiguous().view(torch.int16 if is_half else torch.int32).numpy()
        rules = _rule_table(drafts.rules)
        num_chunks = max(1, min(self._num_threads, len(bits) // ROWS_PER_THREAD))
        while len(self._work) < num_chunks:
            self._work.append(_work_space(vocab_size))
        mark, self._mark = self._mark, self._mark + num_requests

        def work(chunk: int, first: int, last: int) -> None:
            _verify_drafts(
                first,
                last,
                bits,
                BFLOAT16_SHIFT if is_half else 0,
                drafts.context,
                drafts.context_lengths,
                drafts.penalties,
                ends,
                drafts.tokens,
                rules,
                self._work[chunk],
                mark,
                output,
                relaxed,
            )

        bounds = np.linspace(0, num_requests, num_chunks + 1).astype(int)
        others = [self._executor.submit(work, n, *bounds[n : n + 2]) for n in range(1, num_chunks)]
        work(0, *bounds[:2])
        for future in others:
            future.result()
        return torch.from_numpy(output), torch.from_numpy(relaxed)


def _rule_table(rules: Sequence[AcceptanceRule]) -> tuple[npt.NDArray[Any], ...]:
    """The rules as arrays: top_k, min_prob, max_relaxed_run, deferred_tokens, stop tokens; [requests]."""
    width = max([1, *(len(rule.stop_token_ids) for rule in rules)])
    stops = np.full((len(rules), width), NO_TOKEN, np.int32)
    for row, rule in zip(stops, rules, strict=True):
        row[: len(rule.stop_token_ids)] = rule.stop_token_ids
    return (
        np.array([rule.top_k for rule in rules], np.int64),
        np.array([rule.min_prob for rule in rules]),
        np.array([rule.max_relaxed_run for rule in rules], np.int64),
        np.array([rule.deferred_tokens for rule in rules], np.int64),
        stops,
    )
