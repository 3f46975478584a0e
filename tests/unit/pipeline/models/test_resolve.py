import os

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


def test_the_embedded_model(smollm2):
    source = resolve_model(settings("package:smollm2-135m"), smollm2.parent)
    assert source.path == str(smollm2)
    assert source.is_local
    assert source.revision.startswith("sha256-")
