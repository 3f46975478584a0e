"""What every export format is made of: vectors in batches, and the entities that have none."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.encoder import Vectors
from pipeline.encode.versions import Embeddings, as_matrix, file_paths, vectors_dataset
from pipeline.errors import CorruptPartError
from pipeline.settings import Kind
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet

BATCH_ROWS = 8_192


@dataclass(frozen=True)
class VectorsView:
    """The vectors of one version. `missing`: ids of the interactions that have no vector, sorted."""

    layout: DatasetLayout
    embeddings: Embeddings
    missing: dict[Kind, pa.Array]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.embeddings.dim

    def batches(self, kind: Kind) -> Iterator[tuple[pa.Array, Vectors]]:
        """(ids, float32 [ids, dim]), always in the same order."""
        for path in file_paths(self.layout, self.embeddings, kind):
            try:
                with open_parquet(path) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=["entity_id", "embedding"]):
                        yield batch["entity_id"], as_matrix(batch["embedding"])
            except (OSError, pa.ArrowException) as error:
                raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error

    def ids(self, kind: Kind) -> pa.Array:
        """Ids that have a vector, in the order of `batches`."""
        return entity_ids(self.layout, self.embeddings, kind)

    def default_vector(self, kind: Kind) -> Vectors:
        """What stands for an entity without a vector: the mean of all vectors of its kind, [dim]."""
        total = np.zeros(self.dim, np.float64)
        for _, vectors in self.batches(kind):
            total += vectors.sum(axis=0, dtype=np.float64)
        return np.asarray(total / max(1, self.embeddings.num_rows(kind)), np.float32)


def entity_ids(layout: DatasetLayout, embeddings: Embeddings, kind: Kind) -> pa.Array:
    """Ids that have a vector, in the order of the files."""
    column = vectors_dataset(layout, embeddings, kind).to_table(columns=["entity_id"])["entity_id"]
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())


def as_texts(vectors: Vectors, separator: str) -> list[str]:
    """Each vector as numbers with `separator` between; parsed as float32 they are the same numbers."""
    rows, dim = vectors.shape
    numbers = pc.cast(pa.array(vectors.ravel()), pa.string())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * dim), numbers)
    texts: list[str] = pc.binary_join(lists, separator).to_pylist()
    return texts


def as_json(value: object) -> str:
    """JSON on one line, non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False)
