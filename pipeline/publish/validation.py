"""What a snapshot must be before it may be put in force. The files are read back from disk."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError, DataError, PublishError
from pipeline.output_bounds import COUNTED_COLUMNS, OutputCounts, count_outputs, objection_to, total_of
from pipeline.publish.snapshot import SnapshotFile, verify_files
from pipeline.publish_settings import PublishSettings
from pipeline.schemas import KNOWLEDGE, conform
from pipeline.settings import KINDS, Kind
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet

JUDGED = ["entity_id", "group", "run_id", "history_cutoff", *COUNTED_COLUMNS]


@dataclass(frozen=True)
class Validation:
    """What validation counted."""

    counts: dict[str, int]  # kind -> rows
    snapshot: OutputCounts
    new_texts: OutputCounts  # those of the run
    history_cutoff: datetime | None  # the latest of the rows'

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        cutoff = self.history_cutoff.isoformat() if self.history_cutoff else None
        return asdict(self) | {"history_cutoff": cutoff}


def validate_snapshot(
    layout: DatasetLayout,
    version: str,
    files: list[SnapshotFile],
    expected: dict[Kind, pa.Array],
    run_id: str,
    bounds: PublishSettings,
) -> Validation:
    """Check the files of `version` against the `expected` entity ids of each kind and the `bounds`.

    Schema, checksums, row counts, each expected entity exactly once and no other, and the faults of the
    texts (`pipeline.output_bounds`): of the whole snapshot, and of the run's own texts if they are enough
    to judge.
    Raises `PublishError` naming the file, the entity or the bound.
    """
    try:
        verify_files(layout, version, files)
        found = _read_back(layout, version, files, run_id)
        for kind in KINDS:
            _check_entities(kind, found.ids(kind), expected[kind])
    except (CorruptPartError, DataError) as error:
        raise PublishError(f"snapshot {version} is not valid: {error}") from error
    _check_bounds(version, found, bounds)
    return Validation(
        counts={kind: len(found.ids(kind)) for kind in KINDS},
        snapshot=total_of(found.outputs),
        new_texts=total_of(found.new_outputs),
        history_cutoff=found.history_cutoff,
    )


def _check_bounds(version: str, found: "_Found", bounds: PublishSettings) -> None:
    objection = objection_to(found.outputs, bounds)
    if objection is None and total_of(found.new_outputs).num_rows >= bounds.min_judged_rows:
        objection = objection_to(found.new_outputs, bounds, "new texts")
    if objection:
        raise PublishError(f"snapshot {version} is not valid: {objection}")


@dataclass
class _Found:
    """What the files hold."""

    columns: dict[Kind, list[pa.Array]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    outputs: dict[str, OutputCounts] = field(default_factory=dict)  # by kind
    new_outputs: dict[str, OutputCounts] = field(default_factory=dict)
    history_cutoff: datetime | None = None

    def ids(self, kind: Kind) -> pa.ChunkedArray:
        """Entity ids of `kind`, as often as they stand."""
        return pa.chunked_array(self.columns[kind], pa.string())

    def add(self, kind: Kind, rows: pa.Table, run_id: str) -> None:
        """Take the rows of one file."""
        self.columns[kind].extend(rows["entity_id"].chunks)
        for counts, counted in ((self.outputs, rows), (self.new_outputs, _written_by(rows, run_id))):
            for of_kind, found in count_outputs(counted).items():
                counts[of_kind] = counts.get(of_kind, OutputCounts()) + found
        latest = pc.max(rows["history_cutoff"]).as_py()
        if latest is not None and (self.history_cutoff is None or latest > self.history_cutoff):
            self.history_cutoff = latest


def _read_back(layout: DatasetLayout, version: str, files: list[SnapshotFile], run_id: str) -> _Found:
    """Read every file; its schema and its rows are checked."""
    found = _Found()
    for file in files:
        found.add(file.kind, _read_file(layout, version, file), run_id)
    return found


def _read_file(layout: DatasetLayout, version: str, file: SnapshotFile) -> pa.Table:
    path = layout.snapshot(version) / file.path
    try:
        stored = open_parquet(path)
        if not stored.schema_arrow.equals(KNOWLEDGE):
            raise CorruptPartError(f"{path}: its schema is not that of knowledge rows")
        rows = conform(stored.read(), KNOWLEDGE, str(path)).select(JUDGED)
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error
    if rows.num_rows != file.num_rows:
        raise CorruptPartError(f"{path}: {rows.num_rows} rows, not {file.num_rows}")
    for column, value in (("kind", file.kind), ("group", file.group)):
        if not pc.all(pc.equal(rows[column], value), min_count=0).as_py():
            raise CorruptPartError(f"{path}: rows of another {column} than {value}")
    return rows


def _written_by(rows: pa.Table, run_id: str) -> pa.Table:
    return rows.filter(pc.equal(rows["run_id"], run_id))


def _check_entities(kind: Kind, found: pa.ChunkedArray, expected: pa.Array) -> None:
    if pc.count_distinct(found).as_py() != len(found):
        counts = pc.value_counts(found)
        repeated = pc.greater(pc.struct_field(counts, "counts"), 1)
        example = pc.struct_field(counts.filter(repeated), "values")[0].as_py()
        raise DataError(f"{kind} {example!r} stands more than once")
    for ids, known, fault in ((expected, found, "is missing"), (found, expected, "does not belong there")):
        absent = pc.invert(pc.is_in(ids, value_set=_array(known)))
        if pc.any(absent, min_count=0).as_py():
            raise DataError(f"{kind} {ids.filter(absent)[0].as_py()!r} {fault}")


def _array(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
