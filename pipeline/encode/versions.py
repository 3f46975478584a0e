"""Versions of embeddings: `embeddings/<version>/kind=<kind>/part-*.parquet` and `_SUCCESS`, written last.

A folder without `_SUCCESS` is no version: it is being made, or was left half-way. `embeddings/CURRENT`
names the version in force. Rows: `entity_id`, `text_hash`, `embedding` fixed_size_list<float32>[dim]; the
schema metadata say which encoder wrote them.
"""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.encode.encoder import Vectors
from pipeline.encode.source import KEYS
from pipeline.errors import CorruptPartError, DataError
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.settings import Kind
from pipeline.storage.files import write_json, write_text
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import is_remote, parquet_dataset

SUCCESS = "_SUCCESS"
PCA_FILE = "pca.npz"
FINGERPRINT_KEY = b"vector_fingerprint"


class EmbeddingsFile(BaseModel):
    """One part of a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="relative to the version's folder")
    kind: Kind
    num_rows: int = Field(ge=0)
    sha256: str


class Embeddings(BaseModel):
    """Content of `_SUCCESS`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    version: str
    source: str = Field(description="the snapshot or the run whose texts were encoded")
    encoder: dict[str, Any] = Field(description="`EncoderIdentity`")
    vector_fingerprint: str = Field(description="of the encoder and the reduction")
    dim: int = Field(ge=1)
    pca_sha256: str | None
    created_at: datetime
    counts: dict[str, dict[str, int]] = Field(description="kind -> encoded, kept")
    files: list[EmbeddingsFile]

    def num_rows(self, kind: Kind) -> int:
        """Vectors of `kind`."""
        return sum(file.num_rows for file in self.files if file.kind == kind)


def vectors_schema(dim: int, metadata: dict[str, str]) -> pa.Schema:
    """Schema of the parts. `metadata` say which encoder wrote the vectors."""
    embedding = pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False)
    return pa.schema([*KEYS, embedding], metadata=metadata)


def version_folder(layout: DatasetLayout, version: str) -> Path:
    """Folder of `version`, complete or not."""
    return layout.embeddings / version


def embeddings_in_force(layout: DatasetLayout) -> Embeddings | None:
    """The version that `CURRENT` names, None if there is none; raises `CorruptPartError`, `DataError`."""
    try:
        version = layout.current_embeddings.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return read_embeddings(layout, version)


def encoded_other_texts(layout: DatasetLayout) -> str | None:
    """A line for people if the embeddings in force are not those of the knowledge in force."""
    embeddings, snapshot = embeddings_in_force(layout), snapshot_in_force(layout)
    if embeddings is None or snapshot is None or embeddings.source == snapshot.version:
        return None
    return (
        f"the embeddings in force are of the texts of {embeddings.source}; those in force are of "
        f"{snapshot.version}: make encode, then make export"
    )


def read_embeddings(layout: DatasetLayout, version: str) -> Embeddings:
    """The complete version `version`; `DataError` if there is none of that name."""
    path = version_folder(layout, version) / SUCCESS
    try:
        return Embeddings.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(item.version for item in complete_versions(layout)) or "none"
        raise DataError(
            f"version={version}: no complete embeddings in {layout.embeddings}; there are: {known}"
        ) from error
    except (OSError, ValidationError) as error:
        raise CorruptPartError(f"{path}: unreadable: {str(error).splitlines()[0]}") from error


def is_complete(layout: DatasetLayout, version: str) -> bool:
    """Whether `version` was finished."""
    return (version_folder(layout, version) / SUCCESS).exists()


def complete_versions(layout: DatasetLayout) -> list[Embeddings]:
    """All complete versions, oldest first."""
    names = [path.parent.name for path in layout.embeddings.glob(f"*/{SUCCESS}")]
    return sorted((read_embeddings(layout, name) for name in names), key=lambda e: (e.created_at, e.version))


def finish(layout: DatasetLayout, embeddings: Embeddings) -> None:
    """Mark the version complete. Its files are there already."""
    path = version_folder(layout, embeddings.version) / SUCCESS
    write_json(embeddings.model_dump(mode="json"), path)


def put_in_force(layout: DatasetLayout, version: str) -> None:
    """Make the complete `version` the one in force, in one atomic step."""
    write_text(version + "\n", layout.current_embeddings)


def file_paths(layout: DatasetLayout, embeddings: Embeddings, kind: Kind) -> list[Path]:
    """The parts of `kind`, in their order."""
    folder = version_folder(layout, embeddings.version)
    return [folder / file.path for file in embeddings.files if file.kind == kind]


def vectors_dataset(layout: DatasetLayout, embeddings: Embeddings, kind: Kind) -> ds.Dataset:
    """The rows of `kind`, read when asked for: entity_id, text_hash, embedding."""
    return parquet_dataset(file_paths(layout, embeddings, kind), vectors_schema(embeddings.dim, {}))


def as_matrix(embedding: pa.FixedSizeListArray) -> Vectors:
    """A column of vectors as float32 [rows, dim]."""
    flat = embedding.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(embedding), -1)


def prune(layout: DatasetLayout, keep_versions: int) -> list[str]:
    """Remove all but the newest complete versions, never the one in force; the removed names."""
    in_force = embeddings_in_force(layout)
    surplus = [
        embeddings.version
        for embeddings in complete_versions(layout)[:-keep_versions]
        if in_force is None or embeddings.version != in_force.version
    ]
    for version in surplus:
        folder = version_folder(layout, version)
        (folder / SUCCESS).unlink()  # from here on it is no version any more
        _remove(folder)
    return surplus


def _remove(folder: Path) -> None:
    if is_remote(folder):
        remote: Any = folder
        remote.fs.rm(remote.path, recursive=True)
    else:
        shutil.rmtree(folder)
