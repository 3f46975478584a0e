import json

import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.models.folder import check_context, check_model_folder, folder_revision, tokenizer_hash
from tests.unit.pipeline.models.conftest import safetensors


def test_a_complete_folder_passes(model_folder):
    check_model_folder(model_folder, "model")


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", r"has no \*\.safetensors weights"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_what_is_missing_is_named(model_folder, missing, complaint):
    (model_folder / missing).unlink()
    with pytest.raises(ModelError, match=f"^model.path=m: {complaint}"):
        check_model_folder(model_folder, "model.path=m")


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"max_position_embeddings": 4096}, True),
        ({"max_position_embeddings": 2048}, False),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "yarn", "factor": 4.0}}, True),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_theta": 10000.0}}, False),
        ({"text_config": {"max_position_embeddings": 2048}}, False),
        ({}, True),
    ],
)
def test_a_context_shorter_than_asked_for_is_named(model_folder, config, fits):
    (model_folder / "config.json").write_text(json.dumps(config))
    if fits:
        check_context(model_folder, 4096)
        return
    with pytest.raises(ConfigError, match=r"^model\.max_model_len=4096: .* set model\.max_model_len=2048$"):
        check_context(model_folder, 4096)


def test_pickled_weights_are_refused_by_name(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"found pytorch_model\.bin"):
        check_model_folder(model_folder, "m")


def test_a_missing_shard_is_named(model_folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-2.safetensors is missing \(1 of 2 weight files\)"):
        check_model_folder(model_folder, "m")


def test_shards_are_missed_by_the_names_of_the_others_too(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "model-00002-of-00003.safetensors")
    with pytest.raises(ModelError, match=r"model-00001-of-00003.safetensors is missing \(2 of 3 weight"):
        check_model_folder(model_folder, "m")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS; `git lfs"),
        (safetensors(bytes(900))[:-1], "is torn, or no safetensors file"),
        (b"", "is torn, or no safetensors file"),
    ],
)
def test_weights_that_are_not_there_in_full_are_named(model_folder, content, reason):
    (model_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=f"^m: model.safetensors {reason}") as caught:
        check_model_folder(model_folder, "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("has_config", [False, True])
def test_a_lora_adapter_is_named_with_its_base(model_folder, has_config):
    (model_folder / "model.safetensors").rename(model_folder / "adapter_model.safetensors")
    (model_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base"}')
    if not has_config:
        (model_folder / "config.json").unlink()
    with pytest.raises(
        ModelError, match=r"^m: is a LoRA adapter of acme/base, not a model; merge it into that"
    ):
        check_model_folder(model_folder, "m")


def test_a_merged_model_may_keep_the_adapter_beside_it(model_folder):
    (model_folder / "adapter_config.json").write_text("{}")
    (model_folder / "adapter_model.safetensors").write_bytes(b"not read")
    check_model_folder(model_folder, "m")


@pytest.mark.parametrize("has_config", [False, True])
def test_a_folder_of_gguf_is_named_with_the_command_that_converts_it(model_folder, has_config):
    file = model_folder / "model-q4.gguf"
    (model_folder / "model.safetensors").rename(file)
    if not has_config:
        (model_folder / "config.json").unlink()
    command = f"python -m pipeline.models.convert_gguf {file} FOLDER"
    with pytest.raises(ModelError, match=f"^m: model-q4.gguf is a GGUF file, .*{command}"):
        check_model_folder(model_folder, "m")


def test_the_folder_above_a_model_says_where_the_model_is(model_folder):
    with pytest.raises(ModelError, match=rf"^m: has no config.json; {model_folder} has one$"):
        check_model_folder(model_folder.parent, "m")


def test_broken_json_is_one_line(model_folder):
    (model_folder / "config.json").write_text("{\n\n")
    with pytest.raises(ModelError, match=r"config\.json cannot be read") as caught:
        check_model_folder(model_folder, "m")
    assert "\n" not in str(caught.value)


def test_revision_does_not_depend_on_the_place(model_folder, tmp_path):
    moved = tmp_path / "elsewhere"
    before = folder_revision(model_folder)
    model_folder.rename(moved)
    (moved / "README.md").write_text("notes")
    assert folder_revision(moved) == before


@pytest.mark.parametrize("position", [0, 256 * 1024, -1])
def test_revision_sees_other_weights_of_the_same_size(model_folder, position):
    before = folder_revision(model_folder)
    weights = bytearray((model_folder / "model.safetensors").read_bytes())
    weights[position] ^= 1
    (model_folder / "model.safetensors").write_bytes(weights)
    assert folder_revision(model_folder) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_revision_sees_small_files(model_folder, name):
    before = folder_revision(model_folder)
    (model_folder / name).write_text(json.dumps({"changed": True}))
    assert folder_revision(model_folder) != before


def change_tokenizer(folder, **changes):
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | changes, indent=3))


def test_tokenizer_hash_ignores_layout_padding_and_chat_template(model_folder):
    before = tokenizer_hash(model_folder)
    change_tokenizer(model_folder, truncation={"max_length": 5})
    (model_folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "other"}))
    assert tokenizer_hash(model_folder) == before


@pytest.mark.parametrize(
    "changes", [{"model": {"vocab": {"a": 1, "b": 0}}}, {"added_tokens": []}, {"normalizer": {"type": "NFC"}}]
)
def test_tokenizer_hash_sees_the_vocabulary(model_folder, changes):
    before = tokenizer_hash(model_folder)
    change_tokenizer(model_folder, **changes)
    assert tokenizer_hash(model_folder) != before


def test_tokenizer_hash_of_a_sentencepiece_folder(model_folder):
    (model_folder / "tokenizer.json").unlink()
    (model_folder / "tokenizer.model").write_bytes(b"pieces")
    before = tokenizer_hash(model_folder)
    (model_folder / "added_tokens.json").write_text("{}")
    assert tokenizer_hash(model_folder) != before
