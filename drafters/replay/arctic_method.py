"""Arctic Inference's suffix decoding in the simulator, driven as vLLM's `method="suffix"` drives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drafters.replay.traces import Recording

MAX_TREE_DEPTH = 64
UNLIMITED = -1


class ArcticMissingError(Exception):
    """Arctic Inference is not installed."""


@dataclass(frozen=True)
class ArcticSetting:
    """How long Arctic drafts: at most `factor` x (match length) + `offset`, above a token probability."""

    factor: float
    offset: float
    min_prob: float


DEFAULT_SETTINGS = (
    ArcticSetting(1.0, 0.0, 0.7),
    ArcticSetting(1.0, 0.0, 0.5),
    ArcticSetting(1.0, 0.0, 0.3),
    ArcticSetting(1.0, 0.0, 0.1),  # vLLM's defaults
    ArcticSetting(2.0, 0.0, 0.3),
    ArcticSetting(2.0, 0.0, 0.1),
    ArcticSetting(2.0, 1.0, 0.05),
    ArcticSetting(4.0, 1.0, 0.1),
)


def load_cache_class() -> Any:
    """The class `SuffixDecodingCache`; raises `ArcticMissingError` with the remedy."""
    try:
        from arctic_inference.suffix_decoding import SuffixDecodingCache
    except ImportError as error:
        raise ArcticMissingError("arctic-inference is not installed: `make bench-tools` does it") from error
    return SuffixDecodingCache


def build_tree(outputs: Sequence[npt.NDArray[np.int32]]) -> Any:
    """A suffix tree of `outputs`."""
    cache = load_cache_class()(MAX_TREE_DEPTH, UNLIMITED)
    for number, output in enumerate(outputs):
        name = ("pool", number)
        cache.start_request(name, np.zeros(1, np.int32))
        cache.add_active_response(name, np.ascontiguousarray(output, dtype=np.int32))
        cache.stop_request(name)
    return cache


class ArcticReplay:
    """Adapts `SuffixDecodingCache` to the simulator. `cache` is left as it was when all requests ended."""

    def __init__(self, cache: Any, setting: ArcticSetting, max_draft_tokens: int) -> None:
        self._cache = cache
        self._setting = setting
        self._max_draft_tokens = max_draft_tokens
        self._num_known: dict[int, int] = {}

    def start(self, row: int, recording: Recording) -> None:
        """See `ReplayDrafter`."""
        self._cache.start_request(row, recording.prompt)
        self._num_known[row] = len(recording.prompt)

    def propose(
        self, rows: npt.NDArray[np.int64], context: npt.NDArray[np.int32], num_tokens: npt.NDArray[np.int64]
    ) -> list[list[int]]:
        """See `ReplayDrafter`. New tokens are added to the tree here, so that this work is timed too."""
        return [
            self._speculate(row, context[row], length)
            for row, length in zip(rows.tolist(), num_tokens.tolist(), strict=True)
        ]

    def _speculate(self, row: int, text: npt.NDArray[np.int32], length: int) -> list[int]:
        self._cache.add_active_response(row, text[self._num_known[row] : length])
        self._num_known[row] = length
        draft: list[int] = self._cache.speculate(
            row,
            text[max(0, length - MAX_TREE_DEPTH) : length],
            max_spec_tokens=self._max_draft_tokens,
            max_spec_factor=self._setting.factor,
            max_spec_offset=self._setting.offset,
            min_token_prob=self._setting.min_prob,
        ).token_ids
        return draft

    def finish(self, row: int) -> None:
        """See `ReplayDrafter`."""
        self._cache.stop_request(row)
        self._cache.evict_cached_response(row)
