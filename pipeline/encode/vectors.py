"""From texts to the vectors that are stored: the encoder, loaded when first needed, then the reduction."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline.encode.encoder import Encoder, Vectors
from pipeline.encode.reduction import Reduction
from pipeline.encode.source import Source
from pipeline.settings import KINDS


class VectorMaker:
    """Encodes, then reduces if `reduction` is set."""

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self.reduction: Reduction | None = None
        self._load = load
        self._encoder: Encoder | None = None
        self._remembered: dict[str, Vectors] = {}  # unreduced; what the reduction was fitted on

    def encode(self, texts: list[str]) -> Vectors:
        """The vectors to store, float32 [len(texts), dim or reduced_dim]. Equal texts are encoded once."""
        unknown = list(dict.fromkeys(text for text in texts if text not in self._remembered))
        fresh = dict(zip(unknown, self._encode(unknown), strict=True)) if unknown else {}
        vectors = np.stack([fresh[text] if text in fresh else self._remembered[text] for text in texts])
        return self.reduction.apply(vectors) if self.reduction else vectors

    def encode_and_remember(self, texts: list[str]) -> Vectors:
        """Unreduced vectors of `texts`, which `encode` then need not encode again."""
        vectors = self._encode(texts)
        self._remembered = dict(zip(texts, vectors, strict=True))
        return vectors

    def _encode(self, texts: list[str]) -> Vectors:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder.encode(texts)


def sampled_texts(source: Source, num_rows: int) -> list[str]:
    """Up to `num_rows` different texts, evenly spaced over all entities of all kinds."""
    total = sum(batch.num_rows for kind in KINDS for batch in source.texts(kind))
    wanted = np.unique(np.linspace(0, total - 1, min(num_rows, total)).astype(np.int64))
    texts: dict[str, None] = {}
    start = 0
    for kind in KINDS:
        for batch in source.texts(kind):
            end = start + batch.num_rows
            chosen = wanted[(wanted >= start) & (wanted < end)] - start
            texts |= dict.fromkeys(batch["text"].take(pa.array(chosen)).to_pylist())
            start = end
    return list(texts)
