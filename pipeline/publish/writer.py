"""Writes the rows of a snapshot: what is kept of the one in force, then what the run wrote.

Rows pass through in batches; each group's rows are gathered until they fill a file, so a file holds one
group of one kind and a pool of the datastore is built by reading its own files once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.publish.snapshot import Snapshot, SnapshotFile, files_dataset
from pipeline.schemas import KNOWLEDGE, conform
from pipeline.settings import KINDS, Kind
from pipeline.storage.files import sha256_of_file, write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import knowledge_dataset

ROWS_PER_FILE = 65_536
MAX_BUFFERED_ROWS = 262_144  # about 700 MB of texts of 250 tokens


@dataclass
class _Gathered:
    """Rows of one group that are not in a file yet."""

    batches: list[pa.Table] = field(default_factory=list)
    num_rows: int = 0


class SnapshotWriter:
    """Writes `kind=<kind>/<group>-<number>.parquet` below the folder of a version.

    `require_lock` raises if this process has lost the dataset's lock: the file is another's by then.
    """

    def __init__(
        self,
        layout: DatasetLayout,
        version: str,
        rows_per_file: int = ROWS_PER_FILE,
        max_buffered_rows: int = MAX_BUFFERED_ROWS,
        require_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = layout.snapshot(version)
        self._rows_per_file = rows_per_file
        self._max_buffered_rows = max_buffered_rows
        self._require_lock = require_lock
        self._gathered: dict[tuple[Kind, str], _Gathered] = {}
        self._numbers: dict[tuple[Kind, str], int] = {}
        self.files: list[SnapshotFile] = []

    def add(self, kind: Kind, rows: pa.Table) -> None:
        """Take `rows` (schema KNOWLEDGE), all of `kind`."""
        for group in sorted(pc.unique(rows["group"]).to_pylist()):
            part = rows.filter(pc.equal(rows["group"], group))
            gathered = self._gathered.setdefault((kind, group), _Gathered())
            gathered.batches.append(part)
            gathered.num_rows += part.num_rows
            if gathered.num_rows >= self._rows_per_file:
                self._flush((kind, group))
        while sum(gathered.num_rows for gathered in self._gathered.values()) > self._max_buffered_rows:
            self._flush(max(self._gathered, key=lambda key: (self._gathered[key].num_rows, key)))

    def finish(self) -> list[SnapshotFile]:
        """Write what is left; the files in order of their paths."""
        for key in sorted(self._gathered):
            self._flush(key)
        return sorted(self.files, key=lambda file: file.path)

    def _flush(self, key: tuple[Kind, str]) -> None:
        gathered = self._gathered.pop(key)
        kind, group = key
        number = self._numbers.get(key, 0)
        self._numbers[key] = number + 1
        name = f"kind={kind}/{group}-{number:05d}.parquet"
        path = self._folder / name
        self._require_lock()
        write_parquet(conform(pa.concat_tables(gathered.batches), KNOWLEDGE, name), path)
        self.files.append(
            SnapshotFile(
                path=name,
                kind=kind,
                group=group,
                num_rows=gathered.num_rows,
                num_bytes=path.stat().st_size,
                sha256=sha256_of_file(path),
            )
        )


def write_snapshot(
    layout: DatasetLayout,
    version: str,
    run: RunLayout,
    base: Snapshot | None,
    kept: dict[Kind, pa.Array],
    require_lock: Callable[[], None] = lambda: None,
) -> list[SnapshotFile]:
    """Write the files of `version`: of `base` the entities in `kept`, and all rows of `run`."""
    writer = SnapshotWriter(layout, version, require_lock=require_lock)
    for kind in KINDS:
        if base is not None and len(kept[kind]):
            for rows in _kept_rows(layout, base, kind, kept[kind]):
                writer.add(kind, rows)
        for rows in _batches(knowledge_dataset(run), pc.field("kind") == kind):
            writer.add(kind, rows)
    return writer.finish()


def _kept_rows(layout: DatasetLayout, base: Snapshot, kind: Kind, kept: pa.Array) -> Iterator[pa.Table]:
    """The rows of `base` whose ids are in `kept`, batch by batch.

    All ids are looked up at once: each lookup builds a hash table of `kept`, which may be millions.
    """
    files = [file for file in base.files if file.kind == kind]
    ids = [chunk for file in files for chunk in _ids(files_dataset(layout, base.version, [file]))]
    is_kept = pc.is_in(pa.chunked_array(ids, pa.string()), kept)
    position = 0
    for file in files:
        for rows in _batches(files_dataset(layout, base.version, [file])):
            yield rows.filter(is_kept.slice(position, rows.num_rows))
            position += rows.num_rows


def _ids(rows: ds.Dataset) -> list[pa.Array]:
    return rows.to_table(columns=["entity_id"])["entity_id"].chunks


def _batches(rows: ds.Dataset, which: pc.Expression | None = None) -> Iterator[pa.Table]:
    batches: Iterable[pa.RecordBatch] = rows.to_batches(filter=which)
    for batch in batches:
        if batch.num_rows:
            yield pa.Table.from_batches([batch], schema=KNOWLEDGE)
