"""A model folder: what it must hold, and hashes that identify it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ModelError

WEIGHTS_INDEX = "model.safetensors.index.json"
REVISION_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py", ".safetensors"}
# Parts of tokenizer.json that decide which ids a text gets, and back. Truncation, padding and the chat
# template do not.
VOCABULARY_PARTS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "decoder")
VOCABULARY_FILES = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth")
OF_CONTENT = "sha256-"  # how the revision of a folder begins; that of a hub's model is a commit
NUM_SAMPLES = 16
SAMPLE_BYTES = 64 * 1024


def check_model_folder(folder: Path, what: str) -> None:
    """Raise `ModelError` naming `what` unless `folder` has a config and complete safetensors weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{what}: has no config.json")
    if not any(folder.glob("*.safetensors")):
        others = sorted(file.name for file in folder.iterdir() if file.suffix in OTHER_WEIGHTS)
        found = f" (found {others[0]}, which is not loaded: other formats can carry code)" if others else ""
        raise ModelError(f"{what}: has no *.safetensors weights{found}")
    _read_json(folder / "config.json", what)
    _check_shards(folder, what)
    if not _vocabulary_files(folder):
        raise ModelError(f"{what}: has no tokenizer (tokenizer.json, tokenizer.model or a vocabulary)")


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


def _check_shards(folder: Path, what: str) -> None:
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return
    shards = set(_read_json(index, what).get("weight_map", {}).values())
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
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
