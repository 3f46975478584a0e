"""Published texts and a small encoder, for tests of encoding and export."""

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.encode.run import EncodeReport, encode_knowledge
from pipeline.encode.versions import vectors_dataset
from pipeline.publish.snapshot import SUCCESS, Snapshot, SnapshotFile
from pipeline.settings import KINDS, RunSettings
from pipeline.storage.files import sha256_of_file, write_json, write_parquet, write_text
from pipeline.storage.layout import DatasetLayout
from tests.generation import run_settings

DIM = 6
Texts = dict[str, dict[str, str]]  # kind -> id -> text


class HashEncoder:
    """A vector drawn from the hash of each text; remembers what it was asked for."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self._fail_after = fail_after

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def encode(self, texts: list[str]) -> np.ndarray:
        if self._fail_after is not None and len(self.calls) >= self._fail_after:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return np.stack([vector_of(text) for text in texts])


def vector_of(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


def settings_of(data: Path | str, export: dict | None = None, **encoder) -> RunSettings:
    """Settings of dataset `toy` below `data`."""
    settings = run_settings(str(data))
    return RunSettings.model_validate(settings.model_dump() | {"encoder": encoder, "export": export or {}})


def publish_texts(data: Path | str, version: str, texts: Texts) -> DatasetLayout:
    """Put a snapshot of these texts in force, two rows to a file."""
    layout = DatasetLayout.of(data, "toy")
    files = []
    for kind in KINDS:
        rows = list(texts.get(kind, {}).items())
        for start in range(0, len(rows), 2):
            ids, values = zip(*rows[start : start + 2], strict=True)
            path = layout.snapshot(version) / f"kind={kind}" / f"{start:03d}.parquet"
            write_parquet(
                pa.table({"entity_id": list(ids), "kind": [kind] * len(ids), "text": list(values)}), path
            )
            files.append(
                SnapshotFile(
                    path=f"kind={kind}/{path.name}",
                    kind=kind,
                    group="all",
                    num_rows=len(ids),
                    num_bytes=path.stat().st_size,
                    sha256=sha256_of_file(path),
                )
            )
    snapshot = Snapshot(
        version=version,
        run_id=version,
        previous_version=None,
        datastore_version=None,
        created_at=datetime.now(UTC),
        fingerprint="0",
        history_cutoff=None,
        sec_per_token=None,
        counts={kind: len(texts.get(kind, {})) for kind in KINDS},
        validation={},
        files=files,
    )
    write_json(snapshot.model_dump(mode="json"), layout.snapshot(version) / SUCCESS)
    write_text(version + "\n", layout.current_snapshot)
    return layout


def encode(data: Path | str, encoder: HashEncoder, run_id: str | None = None, **changes) -> EncodeReport:
    """Encode what is in force with `encoder`."""
    settings = settings_of(data, **changes).model_copy(update={"run_id": run_id})
    return encode_knowledge(settings, lambda _: encoder)


def allow_recbole(monkeypatch) -> None:
    """RecBole 1.2.1 was written for numpy 1 and reads the command line; what it sets is undone."""
    for name, value in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        monkeypatch.setattr(np, name, value, raising=False)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def vectors_by_id(layout: DatasetLayout, report: EncodeReport, kind: str) -> dict[str, np.ndarray]:
    table = vectors_dataset(layout, report.embeddings, kind).to_table()
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    return dict(zip(table["entity_id"].to_pylist(), vectors, strict=True))
