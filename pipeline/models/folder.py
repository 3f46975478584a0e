"""A model folder: what it must hold, and hashes that identify it."""

import hashlib
import json
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pipeline.errors import ConfigError, ModelError

WEIGHTS_INDEX = "model.safetensors.index.json"
REVISION_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py", ".safetensors"}
# Parts of tokenizer.json that decide which ids a text gets, and back. Truncation, padding and the chat
# template do not.
VOCABULARY_PARTS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "decoder")
VOCABULARY_FILES = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth")
ADAPTER = "adapter_model"  # how the weights of a LoRA adapter are named
ADAPTER_CONFIG = "adapter_config.json"
GGUF_MAGIC = b"GGUF"
LFS_POINTER = b"version https://git-lfs"
SHARD_NAME = re.compile(r"(.*-)(\d+)-of-(\d+)\.safetensors")
OF_CONTENT = "sha256-"  # how the revision of a folder begins; that of a hub's model is a commit
NUM_SAMPLES = 16
SAMPLE_BYTES = 64 * 1024


def check_model_folder(folder: Path, what: str, listed: Collection[str] | None = None) -> None:
    """Raise `ModelError` naming `what` unless `folder` has a config, a tokenizer and complete weights.

    The message says what stands there instead, and what to do. `listed`: names of the files that will be
    there, of a hub's model whose weights are not fetched yet.
    """
    names = sorted(listed if listed is not None else (file.name for file in folder.iterdir()))
    weights = [name for name in names if name.endswith(".safetensors") and not name.startswith(ADAPTER)]
    if not weights and (found := _instead_of_weights(folder, names)):
        raise ModelError(f"{what}: {found}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{what}: has no config.json{_model_below(folder)}")
    if not weights:
        others = [name for name in names if name.endswith(OTHER_WEIGHTS)]
        found = f" (found {others[0]}, which is not loaded: other formats can carry code)" if others else ""
        raise ModelError(f"{what}: has no *.safetensors weights{found}")
    _read_json(folder / "config.json", what)
    _check_shards(folder, what, weights)
    for name in weights:
        if (folder / name).is_file():
            _check_weights(folder / name, what)
    if not _vocabulary_files(folder):
        raise ModelError(f"{what}: has no tokenizer (tokenizer.json, tokenizer.model or a vocabulary)")


def refuse_file(path: Path, what: str) -> None:
    """Raise `ModelError` naming `what` if `path` is a file: a model is a folder."""
    if path.is_file():
        is_gguf = _begins_with(path, GGUF_MAGIC)
        raise ModelError(f"{what}: {_gguf(path) if is_gguf else 'is a file; give the folder of the model'}")


def _instead_of_weights(folder: Path, names: list[str]) -> str | None:
    """What a folder without weights is known to be, and what to do; None: nothing known."""
    if ADAPTER_CONFIG in names:
        base = None
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            base = content.get("base_model_name_or_path")
        return (
            f"is a LoRA adapter of {base or 'another model'}, not a model; merge it into that "
            "(merge_and_unload and save_pretrained of the package peft) and give the merged folder"
        )
    gguf = [name for name in names if name.endswith(".gguf")]
    return _gguf(folder / gguf[0]) if gguf else None


def _gguf(file: Path) -> str:
    place = file if file.is_file() else file.name  # a hub's file may not have been fetched
    return (
        f"{file.name} is a GGUF file, which is not loaded; python -m pipeline.models.convert_gguf {place} "
        "FOLDER makes a folder of safetensors from it: give that"
    )


def _model_below(folder: Path) -> str:
    """A hint at a folder below `folder` that looks like a model: a checkpoint, or a hub's snapshot."""
    found = sorted([*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")])
    return f"; {found[-1].parent} has one" if found else ""


def _check_weights(file: Path, what: str) -> None:
    """Raise `ModelError` unless `file` is a whole safetensors file, by its header and its length."""
    if _begins_with(file, LFS_POINTER):
        raise ModelError(f"{what}: {file.name} is a pointer of Git LFS; `git lfs pull` fetches the weights")
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{what}: {file.name} is torn, or no safetensors file ({error}); fetch or copy it again"
        ) from error


def _begins_with(file: Path, magic: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(magic)) == magic


def check_context(folder: Path, max_model_len: int) -> None:
    """Raise `ConfigError` if the model in `folder` has a shorter context than `model.max_model_len`.

    Left to vLLM, as the engine starts: models whose config scales its positions, or does not tell them.
    """
    config = _read_json(folder / "config.json", str(folder))
    text = {**config, **(config.get("text_config") or {})}
    positions = text.get("max_position_embeddings")
    is_scaled = bool(text.get("rope_scaling")) or "factor" in (text.get("rope_parameters") or {})
    if isinstance(positions, int) and not is_scaled and max_model_len > positions:
        raise ConfigError(
            f"model.max_model_len={max_model_len}: the model has a context of {positions} tokens; "
            f"set model.max_model_len={positions}"
        )


def folder_revision(folder: Path) -> str:
    """An identity of the model in `folder`, independent of where it lies.

    Covers names and contents of configuration, tokenizer and code files, and of the weights their sizes,
    headers and samples spread over each file: a fine-tuned copy differs, without reading all of it.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in REVISION_SUFFIXES or file.name.startswith(".") or not file.is_file():
            continue
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(_samples(file) if file.suffix == ".safetensors" else file.read_bytes())
    return f"{OF_CONTENT}{digest.hexdigest()[:32]}"


def tokenizer_hash(folder: Path) -> str:
    """sha256 (hex) of what maps text to token ids; equal for equal tokenizers whatever their file layout."""
    fast = folder / "tokenizer.json"
    if fast.is_file():
        content = _read_json(fast, f"tokenizer of {folder}")
        canonical = json.dumps({part: content.get(part) for part in VOCABULARY_PARTS}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
    digest = hashlib.sha256()
    added = [file for file in (folder / "added_tokens.json",) if file.is_file()]
    for file in (*_vocabulary_files(folder), *added):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _vocabulary_files(folder: Path) -> list[Path]:
    named = [folder / name for name in ("tokenizer.json", *VOCABULARY_FILES)]
    return [file for file in (*named, *sorted(folder.glob("*.tiktoken"))) if file.is_file()]


def _check_shards(folder: Path, what: str, weights: list[str]) -> None:
    """Raise `ModelError` if files of weights are missing that the index names, or the names of the others."""
    shards = {
        f"{match[1]}{number:0{len(match[2])}}-of-{match[3]}.safetensors"
        for match in map(SHARD_NAME.fullmatch, weights)
        if match
        for number in range(1, int(match[3]) + 1)
    }
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        shards = set(_read_json(index, what).get("weight_map", {}).values())
    missing = sorted(shards.difference(weights))
    if missing:
        raise ModelError(f"{what}: {missing[0]} is missing ({len(missing)} of {len(shards)} weight files)")


def _read_json(file: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{what}: {file.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{what}: {file.name} holds no JSON object")
    return content


def _samples(file: Path) -> bytes:
    """`NUM_SAMPLES` blocks spread evenly over the file, its beginning and its end included."""
    last_start = max(0, file.stat().st_size - SAMPLE_BYTES)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for number in range(NUM_SAMPLES):
            stream.seek(last_start * number // (NUM_SAMPLES - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.digest()
