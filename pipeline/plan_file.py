"""The plan on disk: one Parquet file, each shard a row group of its own.

So a worker reads its shard and nothing else, however large the plan is. The footer, which grows with the
number of shards, is read once by each process.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.schemas import PLAN, conform
from pipeline.storage.files import replaced_atomically
from pipeline.storage.location import open_parquet

SHARD_COLUMN = PLAN.names.index("shard")


def write_shards(shards: Iterable[pa.Table], path: Path) -> None:
    """Write tables of schema PLAN, one for each shard, atomically."""
    with (
        replaced_atomically(path) as temporary,
        # Bounds of other columns would hold whole prompts, once for each shard.
        pq.ParquetWriter(temporary, PLAN, compression="zstd", write_statistics=["shard"]) as writer,
    ):
        for rows in shards:
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))


def read_rows(path: Path, shard: str) -> pa.Table:
    """The rows of `shard`, schema PLAN; none if the plan lacks it. Raises `DataError` if it is unreadable."""
    try:
        index = _index_of(path)
        groups = index.row_groups(shard)
        with open_parquet(path, metadata=index.metadata) as file:
            rows = file.read_row_groups(groups) if groups else PLAN.empty_table()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error
    rows = conform(rows, PLAN, f"{path}, shard {shard}")
    return rows.filter(pc.equal(rows["shard"], shard))


def shard_sizes(path: Path) -> dict[str, int]:
    """Rows of each shard of the plan at `path`, in its order. Raises `DataError` if it is unreadable."""
    try:
        return _index_of(path).sizes()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error


class _Index:
    """The footer of a plan, and which row groups hold which shard."""

    def __init__(self, path: Path) -> None:
        self.metadata = open_parquet(path).metadata
        self._groups: dict[str, list[int]] = {}
        self._mixed: list[int] = []  # of files that another program wrote: they may hold any shard
        for group in range(self.metadata.num_row_groups):
            bounds = self.metadata.row_group(group).column(SHARD_COLUMN).statistics
            if bounds is not None and bounds.has_min_max and bounds.min == bounds.max:
                self._groups.setdefault(bounds.min, []).append(group)
            else:
                self._mixed.append(group)

    def sizes(self) -> dict[str, int]:
        """Rows of each shard, as far as its row groups hold no other."""
        return {
            shard: sum(self.metadata.row_group(group).num_rows for group in groups)
            for shard, groups in self._groups.items()
        }

    def row_groups(self, shard: str) -> list[int]:
        """Row groups in which `shard` may stand, in the file's order."""
        return sorted(self._groups.get(shard, []) + self._mixed)


_lock = threading.Lock()
_latest: tuple[tuple[str, int, int], _Index] | None = None


def _index_of(path: Path) -> _Index:
    """The index of the plan at `path`; that of the plan read last is kept while the file stays the same."""
    global _latest
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    with _lock:
        if _latest is None or _latest[0] != key:
            _latest = key, _Index(path)
        return _latest[1]
