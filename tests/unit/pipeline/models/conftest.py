import json
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from safetensors.numpy import save


@pytest.fixture(autouse=True)
def _environment_is_put_back():
    """Resolving a model takes this process off the hub; the next test starts as before."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a small model; nothing loads its weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder)
    return folder


def write_model(folder: Path) -> None:
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "added_tokens": [{"id": 2, "content": "<end>"}],
        "truncation": None,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    (folder / "model.safetensors").write_bytes(safetensors(bytes(range(256)) * 2048))


def safetensors(content: bytes) -> bytes:
    """A file with one tensor of bytes."""
    return save({"t": np.frombuffer(content, np.uint8)})
