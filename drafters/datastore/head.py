"""The part of a pool that grows during a run, in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from drafters.datastore.format import Document
from drafters.datastore.segment import Segment

GROWTH = 4
"""A segment is merged into its older neighbour when it has grown to 1/GROWTH of its size."""


class PoolHead:
    """Documents added one by one, searchable at once.

    A logarithmic merge: new documents join the youngest segment, which is indexed anew; when it reaches
    a fraction of its older neighbour, the two become one. N documents lie in O(log N) segments, and each
    token is indexed O(log N) times. Beyond `max_tokens` the oldest segment is dropped; no segment grows
    beyond an eighth of it, which bounds what is dropped at once and how long one merge takes.
    """

    def __init__(self, dtype: np.dtype[Any], young_tokens: int = 4096, max_tokens: int = 8_000_000) -> None:
        self._dtype = dtype
        self._young_tokens = young_tokens
        self._max_tokens = max_tokens
        self._max_segment_tokens = max_tokens // 8
        self.segments: list[Segment] = []

    @property
    def num_tokens(self) -> int:
        """Tokens, separators included."""
        return sum(segment.num_tokens for segment in self.segments)

    def add(self, documents: Sequence[Document]) -> None:
        """Index `documents`; `segments` is replaced, never altered, so a reader may keep the old list."""
        documents = [document for document in documents if len(document.token_ids)]
        if not documents:
            return
        segments = list(self.segments)
        young = list(documents)
        if segments and segments[-1].num_tokens < self._young_tokens:
            young = segments.pop().documents() + young
        size = sum(len(document.token_ids) + 1 for document in young)
        while size >= self._young_tokens and segments and segments[-1].num_tokens < GROWTH * size:
            if size + segments[-1].num_tokens > self._max_segment_tokens:
                break
            older = segments.pop()
            young = older.documents() + young
            size += older.num_tokens
        segments.append(Segment.build(young, self._dtype))
        while len(segments) > 1 and sum(segment.num_tokens for segment in segments) > self._max_tokens:
            segments.pop(0)
        self.segments = segments
