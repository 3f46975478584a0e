"""What an encoder is to the rest of the pipeline, whatever library runs it."""

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.encode.locate import EncoderFolder, locate_encoder
from pipeline.encoder_settings import EncoderSettings
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json

Vectors = npt.NDArray[np.float32]
FINGERPRINT_CHARS = 16


class Encoder(Protocol):
    """A sentence encoder."""

    def encode(self, texts: list[str]) -> Vectors:
        """One vector for each text, in this order: float32 [len(texts), dim]; [0, dim] for no text.

        Texts of similar length are encoded together. The text '' has a vector as any other.
        """


@dataclass(frozen=True)
class EncoderIdentity:
    """Everything that a vector depends on apart from its text and a later reduction."""

    name: str
    revision: str
    backend: str
    normalize: bool
    max_tokens: int | None  # null: the encoder's own limit
    prefix: str

    @classmethod
    def of(cls, settings: EncoderSettings, folder: EncoderFolder) -> "EncoderIdentity":
        """The identity of what `settings` describe and `folder` holds. Nothing is loaded."""
        return cls(
            name=folder.name,
            revision=folder.revision,
            backend=settings.backend,
            normalize=settings.normalize,
            max_tokens=settings.max_tokens,
            prefix=settings.prefix,
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits."""
        return sha256_of_json(asdict(self))[:FINGERPRINT_CHARS]


def load_encoder(settings: EncoderSettings) -> Encoder:
    """Load the encoder, on the GPU if there is one. Raises `ModelError` if it cannot be served."""
    folder = locate_encoder(settings)
    with stage(f"loading the encoder {folder.name}", is_short=True):
        if settings.backend == "vllm":
            from pipeline.encode.vllm_encoder import VllmEncoder

            return VllmEncoder(settings, folder)
        from pipeline.encode.sentence_encoder import SentenceEncoder

        return SentenceEncoder(settings, folder)


def normalized(vectors: Vectors) -> Vectors:
    """`vectors` at length one; the zero vector stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
