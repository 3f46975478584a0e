"""The decoding loop of an engine, with recorded tokens in place of the model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drafters.replay.traces import Recording

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class ReplayDrafter(Protocol):
    """What the simulator asks of a drafter. Requests are named by their row in the batch."""

    def start(self, row: int, recording: Recording) -> None:
        """A request begins; its prompt and its first token are known."""

    def propose(self, rows: Int64, context: Int32, num_tokens: Int64) -> list[list[int]]:
        """Drafts for `rows` of `context`, of which `num_tokens` [len(rows)] are known. This call is timed."""

    def finish(self, row: int) -> None:
        """The request is complete. Its text must not serve the others."""


@dataclass(frozen=True)
class ReplayResult:
    """What a replay counted."""

    num_tokens: int  # generated, without each text's first, which the prefill yields
    num_steps: int  # of single requests
    num_drafted: int
    num_calls: int
    propose_sec: float

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens that a request gains in a step; 1 without drafts."""
        return self.num_tokens / max(self.num_steps, 1)

    @property
    def drafted_per_step(self) -> float:
        """Mean draft tokens that are verified in a request's step."""
        return self.num_drafted / max(self.num_steps, 1)

    @property
    def us_per_call(self) -> float:
        """Mean microseconds of `propose`, for the whole batch."""
        return self.propose_sec / max(self.num_calls, 1) * 1e6

    @property
    def us_per_request(self) -> float:
        """Mean microseconds of `propose` for each request of the batch."""
        return self.propose_sec / max(self.num_steps, 1) * 1e6


def replay(drafter: ReplayDrafter, recordings: Sequence[Recording], batch_size: int = 1) -> ReplayResult:
    """Replay `recordings`, `batch_size` at once; a finished one makes room for the next.

    Acceptance is strict: a draft token counts if it is the recorded one, and with it all before it. The
    drafter sees no token before it was generated.
    """
    batch = _Batch(recordings, batch_size)
    num_tokens = num_steps = num_drafted = num_calls = 0
    seconds = 0.0
    while len(rows := batch.fill(drafter)):
        started = time.perf_counter()
        drafts = drafter.propose(rows, batch.context, batch.num_tokens[rows])
        seconds += time.perf_counter() - started
        num_calls += 1
        num_steps += len(rows)
        num_drafted += sum(map(len, drafts))
        for row, draft in zip(rows.tolist(), drafts, strict=True):
            num_tokens += batch.advance(row, draft)
            if batch.is_complete(row):
                drafter.finish(row)
                batch.release(row)
    return ReplayResult(num_tokens, num_steps, num_drafted, num_calls, seconds)


class _Batch:
    def __init__(self, recordings: Sequence[Recording], batch_size: int) -> None:
        longest = max((len(r.prompt) + len(r.output) for r in recordings), default=1)
        self.context = np.zeros((batch_size, longest + 64), np.int32)
        self.num_tokens = np.zeros(batch_size, np.int64)
        self._texts: list[Int32 | None] = [None] * batch_size
        self._waiting = list(reversed(recordings))

    def fill(self, drafter: ReplayDrafter) -> Int64:
        """Start waiting requests in free rows; return the rows in use."""
        for row, text in enumerate(self._texts):
            if text is None and self._waiting:
                recording = self._waiting.pop()
                self._texts[row] = recording.text
                self.num_tokens[row] = 0
                self._reveal(row, len(recording.prompt) + 1)
                drafter.start(row, recording)
        return np.array([row for row, text in enumerate(self._texts) if text is not None], np.int64)

    def advance(self, row: int, draft: list[int]) -> int:
        """Verify `draft`; return how many tokens the step generated."""
        text, known = self._text(row), int(self.num_tokens[row])
        accepted = 0
        limit = min(len(draft), len(text) - known)
        while accepted < limit and draft[accepted] == text[known + accepted]:
            accepted += 1
        self._reveal(row, min(len(text), known + accepted + 1))
        return int(self.num_tokens[row]) - known

    def is_complete(self, row: int) -> bool:
        return int(self.num_tokens[row]) == len(self._text(row))

    def release(self, row: int) -> None:
        self._texts[row] = None

    def _text(self, row: int) -> Int32:
        text = self._texts[row]
        assert text is not None
        return text

    def _reveal(self, row: int, num_tokens: int) -> None:
        known = int(self.num_tokens[row])
        self.context[row, known:num_tokens] = self._text(row)[known:num_tokens]
        self.num_tokens[row] = num_tokens
