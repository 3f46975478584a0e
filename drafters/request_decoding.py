"""What became of a request's drafts, step by step, so that its row counts only tokens of its text."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drafters.messages import RequestStats

NOTHING_ACCEPTED = np.zeros(0, np.bool_)


@dataclass(frozen=True)
class VerifiedDraft:
    """One row's draft after verification."""

    num_draft_tokens: int
    relaxed: npt.NDArray[np.bool_]  # [accepted draft tokens]: taken though not the argmax

    @property
    def num_accepted_tokens(self) -> int:
        """Draft tokens that the model took."""
        return len(self.relaxed)


@dataclass
class RequestDecoding:
    """Running counts of one request: a step writes accepted draft tokens and one of the model's own."""

    _counts: RequestStats = field(default_factory=RequestStats)
    _last_relaxed: npt.NDArray[np.bool_] = field(default_factory=lambda: NOTHING_ACCEPTED)

    def add(self, draft: VerifiedDraft) -> None:
        """Count one step."""
        self._counts.num_decode_steps += 1
        self._counts.num_draft_tokens += draft.num_draft_tokens
        self._counts.num_accepted_tokens += draft.num_accepted_tokens
        self._counts.num_relaxed_tokens += int(draft.relaxed.sum())
        self._last_relaxed = draft.relaxed

    def stats(self, num_output_tokens: int) -> RequestStats:
        """The counts of a finished request whose text has `num_output_tokens`.

        The last step may verify more than `max_tokens` or a stop token let stand: that tail is not counted.
        """
        counts = self._counts
        num_cut = counts.num_decode_steps + counts.num_accepted_tokens - num_output_tokens
        if num_cut <= 0:
            return counts
        num_kept = max(len(self._last_relaxed) + 1 - num_cut, 0)
        tail = self._last_relaxed[num_kept:]
        return RequestStats(
            counts.num_decode_steps,
            counts.num_draft_tokens,
            counts.num_accepted_tokens - len(tail),
            counts.num_relaxed_tokens - int(tail.sum()),
        )
