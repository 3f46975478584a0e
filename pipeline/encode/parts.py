"""The parts of a version while it is being made: written atomically, found again after a kill."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encode.encoder import Vectors
from pipeline.encode.source import KEYS
from pipeline.encode.versions import FINGERPRINT_KEY, EmbeddingsFile, vectors_schema
from pipeline.errors import CorruptPartError
from pipeline.settings import Kind
from pipeline.storage.files import replaced_atomically, sha256_of_file
from pipeline.storage.location import open_parquet

logger = logging.getLogger(__name__)
ROW_GROUP_ROWS = 8_192
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Found:
    """A part of an earlier attempt that can be read and has the right fingerprint."""

    path: Path
    keys: pa.Table
    dim: int


class PartsOfKind:
    """The parts of one kind below a version's folder.

    A part that is found counts if it was written under the same fingerprint and every row of it is asked
    for, once; any other is deleted.
    """

    def __init__(self, folder: Path, kind: Kind, keys: pa.Table, metadata: dict[str, str]) -> None:
        """`keys` (schema KEYS): the rows that the version shall have. `metadata`: of the schema."""
        self.keys = keys
        self.done: npt.NDArray[np.bool_] = np.zeros(keys.num_rows, np.bool_)
        self.files: list[EmbeddingsFile] = []
        self.dim: int | None = None
        self._folder = folder
        self._kind = kind
        self._metadata = metadata
        self._take_found([found for found in map(self._read, self._paths()) if found is not None])

    @property
    def num_rows(self) -> int:
        """Rows that are there."""
        return sum(file.num_rows for file in self.files)

    def write(self, rows: Rows, vectors: Vectors) -> None:
        """Write `vectors`, float32 [len(rows), dim], of these rows of `keys` as one part."""
        dim = vectors.shape[1]
        if self.dim not in (None, dim):
            raise CorruptPartError(f"{self._folder}: vectors of {self.dim} and of {dim} dimensions")
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        columns = [*self.keys.take(pa.array(rows)).columns, embedding]
        table = pa.table(columns, schema=vectors_schema(dim, self._metadata))
        number = 1 + max((int(Path(file.path).stem.removeprefix("part-")) for file in self.files), default=-1)
        path = self._folder / f"kind={self._kind}" / f"part-{number:05d}.parquet"
        with replaced_atomically(path) as temporary:
            pq.write_table(
                table, temporary, compression="zstd", use_dictionary=False, row_group_size=ROW_GROUP_ROWS
            )
            digest = sha256_of_file(temporary)
        self._add(path, rows, dim, digest)

    def positions(self, keys: pa.Table) -> Rows:
        """The row of `self.keys` for each of `keys`: same entity, same text; -1 where there is none.

        Takes time for all of `self.keys` whenever it is called: call it once for many.
        """
        found = pc.index_in(keys["entity_id"], value_set=self.keys["entity_id"].combine_chunks())
        is_same = pc.equal(self.keys["text_hash"].take(found), keys["text_hash"])
        rows = pc.if_else(pc.fill_null(is_same, False), pc.cast(found, pa.int64()), -1)
        return np.array(rows.to_numpy(), np.int64)

    def _paths(self) -> list[Path]:
        return sorted((self._folder / f"kind={self._kind}").glob("part-*.parquet"))

    def _add(self, path: Path, rows: Rows, dim: int, digest: str) -> None:
        name = f"kind={self._kind}/{path.name}"
        self.files.append(EmbeddingsFile(path=name, kind=self._kind, num_rows=len(rows), sha256=digest))
        self.done[rows] = True
        self.dim = dim

    def _read(self, path: Path) -> _Found | None:
        try:
            with open_parquet(path) as part:
                schema, keys = part.schema_arrow, part.read(columns=KEYS.names)
            fingerprint = (schema.metadata or {}).get(FINGERPRINT_KEY, b"").decode()
            if fingerprint == self._metadata["vector_fingerprint"]:
                return _Found(path, keys, schema.field("embedding").type.list_size)
            reason = "another encoder or another reduction wrote it"
        except (OSError, KeyError, AttributeError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
        self._remove(path, reason)
        return None

    def _take_found(self, parts: list[_Found]) -> None:
        if not parts:
            return
        all_rows = self.positions(pa.concat_tables([part.keys for part in parts]))
        start = 0
        for part in parts:
            rows = all_rows[start : start + part.keys.num_rows]
            start += part.keys.num_rows
            is_once = len(np.unique(rows)) == len(rows)
            if (rows < 0).any() or self.done[rows].any() or not is_once or self.dim not in (None, part.dim):
                self._remove(part.path, "its rows are not those to be encoded")
            else:
                self._add(part.path, rows, part.dim, sha256_of_file(part.path))

    def _remove(self, path: Path, reason: str) -> None:
        logger.warning("%s is not used: %s", path, reason)
        path.unlink()
