"""Encoders that vLLM runs: pooling models, and language models made into encoders."""

import os
from typing import Any

import numpy as np

from pipeline.encode.encoder import Vectors, normalized
from pipeline.encode.locate import EncoderFolder
from pipeline.encoder_settings import EncoderSettings
from pipeline.environment import machine_backend, reject_unfit_build, silence_telemetry
from pipeline.errors import ModelError


class VllmEncoder:
    """A vLLM engine in this process that pools instead of generating.

    `encoder.batch_size` is the number of texts in its batch. vLLM takes the pooling from the model's
    sentence-transformers configuration; the length of vectors is set here, whatever that says.
    """

    def __init__(self, settings: EncoderSettings, folder: EncoderFolder) -> None:
        reject_unfit_build()
        silence_telemetry()
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM, PoolingParams

        try:
            self._llm = LLM(model=str(folder.path), runner="pooling", convert="embed", **_options(settings))
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ModelError(f"encoder.path={settings.path}: vLLM cannot serve it: {error}") from error
        self._max_tokens = self._llm.model_config.max_model_len
        self._settings = settings
        self._params = PoolingParams(use_activation=False)
        self._dim = len(self.encode([""])[0])

    def encode(self, texts: list[str]) -> Vectors:
        """See `Encoder`."""
        if not texts:
            return np.empty((0, self._dim), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        outputs = self._llm.embed(
            [self._settings.prefix + texts[row] for row in order],
            pooling_params=self._params,
            tokenization_kwargs={"truncation": True, "max_length": self._max_tokens},
            use_tqdm=False,
        )
        vectors = np.empty((len(texts), len(outputs[0].outputs.embedding)), np.float32)
        vectors[order] = [output.outputs.embedding for output in outputs]
        return normalized(vectors) if self._settings.normalize else vectors


def _options(settings: EncoderSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "max_num_seqs": settings.batch_size,
        "max_model_len": settings.max_tokens,
        "trust_remote_code": settings.trust_remote_code,
        "disable_log_stats": True,
    }
    if machine_backend() == "cpu":
        options |= {"dtype": "float32", "enforce_eager": True}
    return options
