"""What a snapshot must be before it may be put in force. The files are read back from disk."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError, DataError, PublishError
from pipeline.publish.snapshot import SnapshotFile, verify_files
from pipeline.publish_settings import PublishSettings
from pipeline.schemas import KNOWLEDGE, conform
from pipeline.settings import KINDS, Kind
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet

LOOPING = "repetition"  # the finish reason of a text that repetition detection ended
JUDGED = ["entity_id", "kind", "group", "text", "finish_reason", "run_id", "history_cutoff"]


@dataclass(frozen=True)
class Shares:
    """Texts that say nothing."""

    num_rows: int
    num_empty: int
    num_looping: int

    def objection(self, bounds: PublishSettings, what: str) -> str | None:
        """Why these texts must not be published, None if they may."""
        shares = (
            ("empty", self.num_empty, bounds.max_empty_fraction),
            ("looping", self.num_looping, bounds.max_looping_fraction),
        )
        for name, number, bound in shares:
            if number > bound * self.num_rows:
                return (
                    f"{number} of {self.num_rows} {what} are {name}, more than "
                    f"publish.max_{name}_fraction={bound:g}"
                )
        return None


@dataclass(frozen=True)
class Validation:
    """What validation counted."""

    counts: dict[str, int]  # kind -> rows
    snapshot: Shares
    new_texts: Shares  # those of the run
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

    Schema, checksums, row counts, each expected entity exactly once and no other, and the shares of empty
    and looping texts: of the whole snapshot, and of the run's own texts if they are enough to judge.
    Raises `PublishError` naming the file, the entity or the bound.
    """
    try:
        verify_files(layout, version, files)
        found = _read_back(layout, version, files, run_id)
        for kind in KINDS:
            _check_entities(kind, found.ids(kind), expected[kind])
    except (CorruptPartError, DataError) as error:
        raise PublishError(f"snapshot {version} is not valid: {error}") from error
    totals = found.totals
    validation = Validation(
        counts={kind: len(found.ids(kind)) for kind in KINDS},
        snapshot=Shares(totals["rows"], totals["empty"], totals["looping"]),
        new_texts=Shares(totals["new_rows"], totals["new_empty"], totals["new_looping"]),
        history_cutoff=found.history_cutoff,
    )
    _check_bounds(version, validation, bounds)
    return validation


def _check_bounds(version: str, validation: Validation, bounds: PublishSettings) -> None:
    objection = validation.snapshot.objection(bounds, "texts")
    if objection is None and validation.new_texts.num_rows >= bounds.min_judged_rows:
        objection = validation.new_texts.objection(bounds, "new texts")
    if objection:
        raise PublishError(f"snapshot {version} is not valid: {objection}")


@dataclass
class _Found:
    """What the files hold."""

    columns: dict[Kind, list[pa.Array]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    totals: Counter[str] = field(default_factory=Counter)
    history_cutoff: datetime | None = None

    def ids(self, kind: Kind) -> pa.ChunkedArray:
        """Entity ids of `kind`, as often as they stand."""
        return pa.chunked_array(self.columns[kind], pa.string())

    def add(self, kind: Kind, rows: pa.Table, run_id: str) -> None:
        """Take the rows of one file."""
        self.columns[kind].extend(rows["entity_id"].chunks)
        self.totals.update(_totals(rows, run_id))
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


def _totals(rows: pa.Table, run_id: str) -> dict[str, int]:
    empty = pc.equal(pc.utf8_trim_whitespace(rows["text"]), "")
    looping = pc.equal(rows["finish_reason"], LOOPING)
    new = pc.equal(rows["run_id"], run_id)
    return {
        "rows": rows.num_rows,
        "empty": _number(empty),
        "looping": _number(looping),
        "new_rows": _number(new),
        "new_empty": _number(pc.and_(empty, new)),
        "new_looping": _number(pc.and_(looping, new)),
    }


def _number(flags: pa.ChunkedArray) -> int:
    return pc.sum(flags, min_count=0).as_py() or 0


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
