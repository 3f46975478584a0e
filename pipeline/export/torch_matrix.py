"""torch: `<kind>_weight.npy` for `nn.Embedding`, `<kind>_ids.parquet` (entity_id, row), `<kind>_mask.npy`.

Row 0 stands for every unknown id; the ids of the interactions that have no vector have rows of their own at
the end. All of these hold the default vector, the mean of all vectors of the kind, and their mask is false.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.encode.encoder import Vectors
from pipeline.encoder_settings import ExportSettings
from pipeline.export.npy import write_npy
from pipeline.export.view import VectorsView
from pipeline.settings import KINDS, Kind
from pipeline.storage.files import replaced_atomically, write_parquet


def write_torch(view: VectorsView, folder: Path, settings: ExportSettings) -> list[str]:
    """Write the format's files below `folder`; their names."""
    names = []
    for kind in KINDS:
        files = [f"{kind}_weight.npy", f"{kind}_mask.npy", f"{kind}_ids.parquet"]
        num_known, num_missing = view.embeddings.num_rows(kind), len(view.missing[kind])
        num_rows = 1 + num_known + num_missing
        with replaced_atomically(folder / files[0]) as temporary, temporary.open("wb") as file:
            write_npy(file, (num_rows, view.dim), np.float32, _rows(view, kind))
        mask = np.zeros(num_rows, np.bool_)
        mask[1 : 1 + num_known] = True
        with replaced_atomically(folder / files[1]) as temporary, temporary.open("wb") as file:
            np.save(file, mask)
        ids = pa.concat_arrays([view.ids(kind), view.missing[kind]])
        rows = pa.array(np.arange(1, num_rows, dtype=np.int64))
        write_parquet(pa.table({"entity_id": ids, "row": rows}), folder / files[2])
        names += files
    return names


def _rows(view: VectorsView, kind: Kind) -> Iterator[Vectors]:
    default = view.default_vector(kind)[None]
    yield default
    yield from (vectors for _, vectors in view.batches(kind))
    yield np.repeat(default, len(view.missing[kind]), axis=0)
