"""Encoders that sentence-transformers runs."""

import numpy as np

from pipeline.encode.encoder import Vectors
from pipeline.encode.locate import EncoderFolder
from pipeline.encoder_settings import EncoderSettings
from pipeline.errors import ModelError


class SentenceEncoder:
    """A sentence-transformers model. It sorts texts by length before it cuts them into batches."""

    def __init__(self, settings: EncoderSettings, folder: EncoderFolder) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # weights are read in a second: its bar would stand among the lines of a job
        try:
            self._model = SentenceTransformer(
                str(folder.path),
                device="cuda" if torch.cuda.is_available() else "cpu",
                local_files_only=True,
                trust_remote_code=settings.trust_remote_code,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ModelError(f"encoder.path={settings.path}: cannot be loaded: {error}") from error
        if settings.max_tokens is not None:
            self._model.max_seq_length = settings.max_tokens
        self._settings = settings
        self._dim = len(self.encode([""])[0])

    def encode(self, texts: list[str]) -> Vectors:
        """See `Encoder`."""
        if not texts:
            return np.empty((0, self._dim), np.float32)
        prefix = self._settings.prefix
        vectors = self._model.encode(
            [prefix + text for text in texts] if prefix else texts,
            batch_size=self._settings.batch_size,
            normalize_embeddings=self._settings.normalize,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)
