import json
import os
import shutil

import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.models import resolve_model
from pipeline.models.folder import folder_revision, tokenizer_hash
from pipeline.settings import ModelSettings


def settings(path: object) -> ModelSettings:
    return ModelSettings(name="m", path=str(path), max_model_len=64)


def test_a_local_folder_is_used_as_it_is(model_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    source = resolve_model(settings(model_folder), tmp_path / "models")
    assert source.path == str(model_folder)
    assert source.is_local
    assert source.revision == folder_revision(model_folder)
    assert source.tokenizer_hash == tokenizer_hash(model_folder)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not (tmp_path / "models").exists()


def test_a_model_with_too_short_a_context_is_refused(model_folder, tmp_path):
    (model_folder / "config.json").write_text('{"max_position_embeddings": 32}')
    with pytest.raises(ConfigError, match=r"model\.max_model_len=64"):
        resolve_model(settings(model_folder), tmp_path)


def test_a_relative_folder_becomes_absolute(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(model_folder.parent)
    assert resolve_model(settings("model"), tmp_path).path == str(model_folder)


@pytest.mark.parametrize("path", ["/no/such", "./no", "~/no/such", "word", "a/b/c", "", "org/na me"])
def test_what_is_neither_folder_nor_hub_id_is_refused_without_the_network(path, tmp_path):
    with pytest.raises(ModelError, match=r"^model\.path=.*: no such folder, and not a hub id \(org/name\)$"):
        resolve_model(settings(path), tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF\x03\0\0\0", r"model.bin is a GGUF file, .* python -m pipeline.models.convert_gguf"),
        (b"\x80\x02", "is a file; give the folder of the model"),
    ],
)
def test_a_file_is_told_by_its_first_bytes(tmp_path, content, reason):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^model\.path={tmp_path / 'model.bin'}: {reason}"):
        resolve_model(settings(tmp_path / "model.bin"), tmp_path)


def test_texts_end_at_the_token_that_closes_a_turn_whatever_the_files_name(smollm2, tmp_path, caplog):
    """As the embedded model came from its packages once: everything named <|endoftext|> as the end."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2, folder)
    before = resolve_model(settings(folder), tmp_path)
    assert before.revision == folder_revision(folder)
    for name in ("generation_config.json", "config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"eos_token_id": 0}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"eos_token": "<|endoftext|>"}))
    source = resolve_model(settings(folder), tmp_path)
    assert source.revision == f"{folder_revision(folder)}+end2", "texts of other ends are written anew"
    assert "its chat template closes a turn with <|im_end|>" in caplog.text


def test_the_embedded_model(smollm2):
    source = resolve_model(settings("package:smollm2-135m"), smollm2.parent)
    assert source.path == str(smollm2)
    assert source.is_local
    assert source.revision.startswith("sha256-")
