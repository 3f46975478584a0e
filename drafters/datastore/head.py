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
    token is indexed O(log N) times.
    """

    def __init__(self, dtype: np.dtype[Any], young_tokens: int = 4096) -> None:
        self._dtype = dtype
        self._young_tokens = young_tokens
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
            older = segments.pop()
            young = older.documents() + young
            size += older.num_tokens
        segments.append(Segment.build(young, self._dtype))
        self.segments = segments
