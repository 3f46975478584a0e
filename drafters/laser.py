"""The LASER drafter: request states, sources, one native call a step. Knows nothing of vLLM."""

import itertools
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drafters.budget import Budget, best_budget
from drafters.calibration import Calibration
from drafters.datastore import DOMAIN_GROUP, Datastore, Document, PoolHead, Segment
from drafters.datastore.format import entity_key, token_dtype
from drafters.retrieval.draft import DOMAIN, GROUP, NUM_FEATURES, NUM_SOURCES, SOURCES, draft_rows
from drafters.retrieval.learn import learn_rows
from drafters.step_time import StepTimeModel

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
NO_DRAFTS = 2.0  # a threshold that no chance reaches
NO_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class DraftKey:
    """Whose text a request writes: selects its pools and its entity's previous text."""

    kind: str = ""
    group: str = ""
    entity_id: str = ""


@dataclass(frozen=True)
class SourceStats:
    """Draft tokens handed to verification, and accepted, of one source."""

    num_draft_tokens: int
    num_accepted_tokens: int


@dataclass(frozen=True)
class Verification:
    """What became of the last drafts, by request, where that is not just what was proposed."""

    num_draft_tokens: Int64  # [n] verified; a grammar or the step's token budget may have cut the rest
    mismatch_label: npt.NDArray[np.float64]  # [n] chance that a token that is not the argmax is accepted


class _Slots:
    """State arrays of the requests in flight; a request keeps its slot until it is released."""

    GROWING = (
        "drafted_at",
        "num_proposed",
        "mismatch_label",
        "output_start",
        "output_end",
        "previous",
        "segment_ranges",
    )

    def __init__(self, width: int, capacity: int = 64) -> None:
        self.width = width
        self.drafted_at = np.zeros(capacity, np.int64)  # context length when last drafted, 0: no draft
        self.num_proposed = np.zeros(capacity, np.int64)
        self.mismatch_label = np.zeros(capacity, np.float64)
        self.output_start = np.zeros(capacity, np.int64)
        self.output_end = np.zeros(capacity, np.int64)  # where its longest output ends
        self.previous = np.zeros((capacity, 2), np.int64)  # address, length
        self.segment_ranges = np.zeros((capacity, 2), np.int64)
        self.draft = self._draft_arrays(capacity)
        self._free = list(range(capacity - 1, -1, -1))

    def _draft_arrays(self, capacity: int) -> tuple[npt.NDArray[Any], ...]:
        return (
            np.zeros((capacity, self.width), np.int32),  # tokens
            np.zeros((capacity, self.width), np.float64),  # chances, cumulative
            np.zeros((capacity, self.width), np.int8),  # sources
            np.zeros((capacity, self.width, NUM_FEATURES), np.float64),
            np.zeros(capacity, np.int64),  # tokens considered
        )

    def take(self) -> int:
        """A free slot; the arrays grow when there is none."""
        if not self._free:
            self._grow()
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give `slot` back."""
        self.drafted_at[slot] = 0
        self.num_proposed[slot] = 0
        self.mismatch_label[slot] = 0.0
        self._free.append(slot)

    def _grow(self) -> None:
        old = len(self.drafted_at)
        for name in self.GROWING:
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        self.draft = tuple(np.concatenate([array, np.zeros_like(array)]) for array in self.draft)
        self._free.extend(range(2 * old - 1, old - 1, -1))


class LaserDrafter:
    """Proposes draft tokens from retrieved text.

    Usage, once for each decoding step: `propose(request_ids, context, num_tokens)`; before a request's
    first step, `start`; after its last, `finish`. Texts that are taught (`teach`) draft for later requests.
    """

    ROWS_PER_THREAD = 16  # below this a thread costs more than it saves
    FLOOR_SHARE = 0.5  # drafts are extended to this share of the last price, so that it can fall again
    MIN_FLOOR = 0.01
    EXPLORE_STEPS = 16  # so many steps with hardly a draft, or none without, tell nothing about their price
    EXPLORE_SHARE = 0.25  # then one step verifies the best few drafts, this share of the batch; or none
    EXPLORE_LOSS = 0.0025  # of the tokens per second: steps without drafts are rarer where drafts bring much
    CERTAIN = 0.6  # share of evidence in the marginal cost above which that loss counts

    def __init__(
        self,
        vocab_size: int,
        max_draft_tokens: int,
        datastore: Datastore | None = None,
        calibration: Calibration | None = None,
        num_threads: int = 1,
        fixed_price: float | None = None,
    ) -> None:
        """`fixed_price` replaces the measured price: for offline studies, where time means nothing."""
        self.calibration = calibration or Calibration()
        self.step_time = StepTimeModel()
        self.price = 0.3 if fixed_price is None else fixed_price
        self.counts = np.zeros((NUM_SOURCES, 2), np.int64)
        self._steps_alike = 0
        self._fixed_price = fixed_price
        self._max_draft_tokens = max_draft_tokens
        self._datastore = datastore
        self._dtype = token_dtype(vocab_size)
        self._heads: dict[str, PoolHead] = defaultdict(lambda: PoolHead(self._dtype))
        self._slots = _Slots(max_draft_tokens + 1)
        self._slot_of: dict[str, int] = {}
        self._key_of: dict[str, DraftKey] = {}
        self._previous_of: dict[int, Int32] = {}  # keeps the mapped arrays alive
        self._executor = ThreadPoolExecutor(num_threads) if num_threads > 1 else None
        self._num_threads = num_threads
        self._segments: list[Segment] = []  # keeps alive what the table points to
        self._segment_table = np.zeros((0, 5), np.int64)
        self._segment_lists = np.zeros(0, np.int64)
        self._segments_stale = True

    # -- life of a request ---------------------------------------------------------------------------------

    def start(
        self,
        request_id: str,
        num_prompt_tokens: int,
        key: DraftKey | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Begin to draft for `request_id`: at most `max_tokens` of output after `num_prompt_tokens`."""
        key = key or DraftKey()
        slot = self._slots.take()
        self._slot_of[request_id], self._key_of[request_id] = slot, key
        self._slots.output_start[slot] = num_prompt_tokens
        self._slots.output_end[slot] = NO_END if max_tokens is None else num_prompt_tokens + max_tokens
        self._slots.previous[slot] = 0
        if self._datastore is not None and key.entity_id:
            text = self._datastore.previous(key.kind, entity_key(key.entity_id))
            if text is not None:
                self._previous_of[slot] = np.ascontiguousarray(text, dtype=np.int32)
                self._slots.previous[slot] = self._previous_of[slot].ctypes.data, len(text)
        self._segments_stale = True

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._slot_of

    def active(self) -> list[str]:
        """Ids of the requests that were started and not finished."""
        return list(self._slot_of)

    def finish(self, request_id: str) -> None:
        """Forget `request_id`."""
        slot = self._slot_of.pop(request_id)
        self._key_of.pop(request_id)
        self._previous_of.pop(slot, None)
        self._slots.release(slot)

    def teach(self, kind: str, documents: Sequence[Document]) -> None:
        """Let later drafts of `kind` use `documents`. By one thread at a time, be it `propose`'s or not."""
        self._heads[kind].add(documents)
        self._segments_stale = True

    # -- a step --------------------------------------------------------------------------------------------

    def propose(
        self,
        request_ids: Sequence[str],
        rows: Int64,
        context: Int32,
        num_tokens: Int64,
        verification: Verification | None = None,
    ) -> list[list[int]]:
        """Draft tokens for each of `request_ids`, which were all started.

        `rows` [n]: row of each request in `context` [batch, max_len]; `num_tokens` [n]: its length there,
        the last step's tokens included. Without `verification` the last drafts were verified as proposed,
        by a strict rule. Returns n lists, possibly empty.
        """
        slots = np.fromiter((self._slot_of[r] for r in request_ids), np.int64, len(request_ids))
        if verification is not None:
            num_proposed = self._slots.num_proposed[slots]
            self._slots.num_proposed[slots] = np.minimum(num_proposed, verification.num_draft_tokens)
            self._slots.mismatch_label[slots] = verification.mismatch_label
        self._learn(context, num_tokens, rows, slots)
        if self._segments_stale:
            self._refresh_segments()
        self._draft(context, num_tokens, rows, slots)
        num_proposed = self._choose(slots)
        self._slots.drafted_at[slots] = num_tokens
        self._slots.num_proposed[slots] = num_proposed
        tokens = self._slots.draft[0][slots].tolist()
        return [row[:count] for row, count in zip(tokens, num_proposed.tolist(), strict=True)]

    def _learn(self, context: Int32, num_tokens: Int64, rows: Int64, slots: Int64) -> None:
        learn_rows(
            context,
            num_tokens,
            rows,
            slots,
            self._slots.drafted_at,
            self._slots.num_proposed,
            self._slots.mismatch_label,
            self.calibration.weights,
            self.calibration.squares,
            self._slots.draft,
            self.counts,
        )

    def _draft(self, context: Int32, num_tokens: Int64, rows: Int64, slots: Int64) -> None:
        floor = max(self.FLOOR_SHARE * self.price, self.MIN_FLOOR)
        if self._fixed_price is not None:
            floor = self._fixed_price
        end = np.minimum(context.shape[1], self._slots.output_end[slots])
        room = np.maximum(end - num_tokens - 1, 0)  # a step adds a token of the model's own
        max_tokens = np.minimum(room, self._max_draft_tokens + 1)

        def work(first: int, last: int) -> None:
            draft_rows(
                first,
                last,
                context,
                num_tokens,
                rows,
                slots,
                self._slots.output_start,
                self._slots.previous,
                self._segment_table,
                self._slots.segment_ranges,
                self._segment_lists,
                self.calibration.weights,
                floor,
                max_tokens,
                self._slots.draft,
            )

        num_rows = len(rows)
        num_chunks = min(self._num_threads, num_rows // self.ROWS_PER_THREAD)
        if self._executor is None or num_chunks < 2:
            work(0, num_rows)
            return
        bounds = np.linspace(0, num_rows, num_chunks + 1).astype(int)
        futures: list[Future[None]] = [
            self._executor.submit(work, a, b) for a, b in itertools.pairwise(bounds)
        ]
        for future in futures:
            future.result()

    def _choose(self, slots: Int64) -> Int64:
        """How many tokens of each draft are verified; updates the price."""
        _, chances, _, _, num_considered = self._slots.draft
        considered = np.minimum(num_considered[slots], self._max_draft_tokens)
        chances = chances[slots, : self._max_draft_tokens]
        drafted = np.arange(self._max_draft_tokens) < considered[:, None]
        threshold = self.price
        if self._fixed_price is None:
            batch_tokens = len(slots) + int(self._slots.num_proposed[slots].sum())
            costs = self.step_time.costs(batch_tokens)
            of_drafts = chances[drafted]
            budget = best_budget(of_drafts, len(slots), costs.base, costs.marginal)
            self.price = budget.price
            threshold = self._explored(budget, of_drafts, len(slots), costs.certainty)
        return np.asarray((drafted & (chances >= threshold)).sum(axis=1), np.int64)

    def _explored(
        self, budget: Budget, chances: npt.NDArray[np.float64], num_rows: int, certainty: float
    ) -> float:
        """The price, or now and then another threshold: steps that are all alike teach nothing about it."""
        if not len(chances):
            return budget.price
        wanted = max(1, int(self.EXPLORE_SHARE * num_rows))
        is_quiet = budget.num_drafts < wanted
        self._steps_alike += 1
        patience = float(self.EXPLORE_STEPS)
        if not is_quiet and certainty >= self.CERTAIN:
            patience = max(patience, (1.0 - 1.0 / budget.gain) / self.EXPLORE_LOSS)
        if self._steps_alike < patience:
            return budget.price
        self._steps_alike = 0
        return float(np.sort(chances)[-min(wanted, len(chances))]) if is_quiet else NO_DRAFTS

    # -- sources -------------------------------------------------------------------------------------------

    def _refresh_segments(self) -> None:
        """List each active request's segments; see `_sources`."""
        self._segments_stale = False  # before they are read: another thread may teach meanwhile
        number: dict[int, int] = {}
        table: list[tuple[int, int, int, int, int]] = []
        self._segments = []
        lists: list[int] = []
        ranges: dict[tuple[str, str], tuple[int, int]] = {}
        for request_id, slot in self._slot_of.items():
            key = self._key_of[request_id]
            pool = (key.kind, key.group)
            if pool not in ranges:
                first = len(lists)
                for segment, source in self._sources(*pool):
                    if id(segment) not in number:
                        number[id(segment)] = len(table)
                        self._segments.append(segment)
                        table.append(
                            (
                                segment.tokens.ctypes.data,
                                segment.index.ctypes.data,
                                segment.num_tokens,
                                segment.tokens.dtype.itemsize,
                                source,
                            )
                        )
                    lists.append(number[id(segment)])
                ranges[pool] = (first, len(lists))
            self._slots.segment_ranges[slot] = ranges[pool]
        self._segment_table = np.array(table, np.int64).reshape(-1, 5)
        self._segment_lists = np.array(lists, np.int64)

    def _sources(self, kind: str, group: str) -> list[tuple[Segment, int]]:
        """The group's pool, the domain's, and its head, each youngest first: ties fall to the first."""
        pools: list[tuple[Segment, int]] = []
        if self._datastore is not None:
            pools += [(segment, GROUP) for segment in self._datastore.pool(kind, group)[::-1]]
            pools += [(segment, DOMAIN) for segment in self._datastore.pool(kind, DOMAIN_GROUP)[::-1]]
        if kind in self._heads:
            pools += [(segment, DOMAIN) for segment in self._heads[kind].segments[::-1]]
        return [(segment, source) for segment, source in pools if segment.num_tokens]

    # -- report --------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, SourceStats]:
        """Drafted and accepted tokens by source, since the start."""
        return {name: SourceStats(int(d), int(a)) for name, (d, a) in zip(SOURCES, self.counts, strict=True)}


def available_threads() -> int:
    """Threads that drafting may use: half the cores this process may run on, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))
