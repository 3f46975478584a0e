"""Where each entity's youngest text is: one sorted table for all pools of a kind.

On disk three little-endian arrays, one after the other: uint64 keys in ascending order, then for each key
int32 segment and int32 document. Segments are counted in the order of the header, those of the kind alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BYTES_PER_ENTITY = 16


@dataclass(frozen=True)
class EntityDirectory:
    """Finds the segment and the document of an entity by one binary search."""

    keys: npt.NDArray[np.uint64]  # [num_entities], ascending
    segments: npt.NDArray[np.int32]  # [num_entities]
    documents: npt.NDArray[np.int32]  # [num_entities]

    @classmethod
    def of(cls, entities: Sequence[npt.NDArray[np.uint64]]) -> "EntityDirectory":
        """From the entities of each segment's documents, oldest first: of several texts the last counts."""
        lengths = [len(of_segment) for of_segment in entities]
        keys = np.concatenate([np.empty(0, np.uint64), *entities])[::-1]
        segments = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[::-1]
        counts = [np.arange(length, dtype=np.int32) for length in lengths]
        documents = np.concatenate([np.empty(0, np.int32), *counts])[::-1]
        keys, first = np.unique(keys, return_index=True)
        return cls(keys, segments[first], documents[first])

    @classmethod
    def view(cls, data: npt.NDArray[np.uint8]) -> "EntityDirectory":
        """On the bytes of a file; see the module."""
        count = len(data) // BYTES_PER_ENTITY
        keys, places = data[: 8 * count].view("<u8"), data[8 * count :].view("<i4")
        return cls(keys, places[:count], places[count:])

    def tobytes(self) -> bytes:
        """What `view` takes."""
        parts = (self.keys.astype("<u8"), self.segments.astype("<i4"), self.documents.astype("<i4"))
        return b"".join(part.tobytes() for part in parts)

    def find(self, entity: int) -> tuple[int, int] | None:
        """(segment, document) of the youngest text of `entity`, or None."""
        place = int(np.searchsorted(self.keys, np.uint64(entity)))
        if place == len(self.keys) or int(self.keys[place]) != entity:
            return None
        return int(self.segments[place]), int(self.documents[place])
