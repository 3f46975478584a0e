"""Fixtures for the whole suite."""

import os
from pathlib import Path

import pytest

from pipeline.environment import ONE_THREAD, silence_telemetry

silence_telemetry()  # before a test module imports vLLM, Ray or transformers
if "PYTEST_XDIST_WORKER" in os.environ:  # threads that wait for a core that the other process has would spin
    os.environ.update(ONE_THREAD | os.environ)
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the embedded SmolLM2-135M-Instruct; prepared once, reused by later test runs."""
    from pipeline.models.embedded import prepare_embedded_model

    return prepare_embedded_model("smollm2-135m", CHECKOUT / "data" / "models")
