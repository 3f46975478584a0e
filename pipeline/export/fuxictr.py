"""FuxiCTR: `<field>.npz` with `key` (ids as text) and `value` (float32), and the entries for its YAML.

FuxiCTR adds the keys to a feature's vocabulary and looks each up; an id without a key gets the zero vector
(with `freeze_emb: true`).
"""

import zipfile
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import yaml

from pipeline.encoder_settings import ExportSettings
from pipeline.export.npy import write_npy
from pipeline.export.view import VectorsView
from pipeline.settings import KINDS, Kind
from pipeline.storage.files import replaced_atomically, write_text

ENTRIES = "feature_cols.yaml"


def write_fuxictr(view: VectorsView, folder: Path, settings: ExportSettings) -> list[str]:
    """Write the format's files below `folder`; their names."""
    names = []
    entries = []
    for kind in KINDS:
        name = f"{settings.field(kind)}.npz"
        _write_npz(view, kind, folder / name)
        names.append(name)
        entries.append(_entry(view, settings.field(kind), kind, folder / name))
    text = (
        "# Add these to feature_cols of your FuxiCTR dataset. A knowledge feature copies the id column;\n"
        "# its frozen vector is projected to embedding_dim. pretrain_usage: sum adds an id embedding.\n"
    )
    write_text(text + yaml.safe_dump({"feature_cols": entries}, sort_keys=False), folder / ENTRIES)
    return [*names, ENTRIES]


def _entry(view: VectorsView, field: str, kind: Kind, path: Path) -> dict[str, object]:
    return {
        "name": f"{kind}_knowledge",
        "active": True,
        "dtype": "str",
        "type": "categorical",
        "preprocess": f"copy_from({field})",
        "pretrained_emb": str(path.absolute()),
        "pretrain_dim": view.dim,
        "pretrain_usage": "init",
        "freeze_emb": True,
        "min_categr_count": 1,
    }


def _write_npz(view: VectorsView, kind: Kind, path: Path) -> None:
    num_rows = view.embeddings.num_rows(kind)
    lengths = pc.utf8_length(view.ids(kind))
    key_type = f"<U{max(1, pc.max(lengths).as_py() or 1)}"
    with (
        replaced_atomically(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        with archive.open("key.npy", "w", force_zip64=True) as file:
            keys = (np.array(ids.to_pylist(), key_type) for ids, _ in view.batches(kind))
            write_npy(file, (num_rows,), key_type, keys)
        with archive.open("value.npy", "w", force_zip64=True) as file:
            write_npy(file, (num_rows, view.dim), np.float32, (vectors for _, vectors in view.batches(kind)))
