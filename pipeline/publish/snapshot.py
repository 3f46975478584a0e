"""A published snapshot: `knowledge/<version>/kind=<kind>/*.parquet` and `_SUCCESS`, written last.

A folder without `_SUCCESS` is no version: something stopped while it was written. `knowledge/CURRENT`
names the version in force; the datastore in force is the one that version's `_SUCCESS` names, so one
atomic replacement of that file puts both in force together.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import CorruptPartError, DataError
from pipeline.schemas import KNOWLEDGE
from pipeline.settings import Kind
from pipeline.storage.files import sha256_of_file, write_text
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import parquet_dataset

logger = logging.getLogger(__name__)
SUCCESS = "_SUCCESS"
LEFT = "_ROLLED_BACK"  # marks a version that a rollback left
NUM_CHECK_THREADS = 8


class SnapshotFile(BaseModel):
    """One file of a snapshot. It holds rows of one kind and one group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="relative to the version's folder")
    kind: Kind
    group: str
    num_rows: int = Field(ge=0)
    num_bytes: int = Field(ge=0)
    sha256: str


class Snapshot(BaseModel):
    """Content of `_SUCCESS`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    version: str
    run_id: str
    previous_version: str | None
    datastore_version: str | None
    created_at: datetime
    fingerprint: str = Field(description="text fingerprint of the rows that the run wrote")
    history_cutoff: datetime | None = Field(description="no prompt of any row saw an event at or after it")
    sec_per_token: float | None = Field(description="decode seconds per output token, as last measured")
    counts: dict[str, int] = Field(description="kind -> rows")
    validation: dict[str, Any]
    files: list[SnapshotFile]


def name_in_force(layout: DatasetLayout) -> str | None:
    """What `CURRENT` names, whatever became of that version; None if nothing was published."""
    try:
        return layout.current_snapshot.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def snapshot_in_force(layout: DatasetLayout) -> Snapshot | None:
    """The snapshot that `CURRENT` names; None if nothing was published.

    Raises `CorruptPartError` if it names a version that is not complete.
    """
    version = name_in_force(layout)
    return None if version is None else read_snapshot(layout, version)


def read_snapshot(layout: DatasetLayout, version: str) -> Snapshot:
    """The snapshot `version`; `DataError` if there is no such version, `CorruptPartError` if unreadable."""
    path = layout.snapshot(version) / SUCCESS
    try:
        return Snapshot.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(versions(layout)) or "none"
        raise DataError(f"version={version}: no complete snapshot in {layout.knowledge}; {known}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise CorruptPartError(f"{path}: unreadable: {where}: {first['msg']}") from error
    except OSError as error:
        raise CorruptPartError(f"{path}: unreadable: {str(error).splitlines()[0]}") from error


def snapshots(layout: DatasetLayout) -> list[Snapshot]:
    """The complete snapshots, oldest first. One whose `_SUCCESS` is unreadable is left out with a warning."""
    found = []
    for path in layout.knowledge.glob(f"*/{SUCCESS}"):
        try:
            found.append(read_snapshot(layout, path.parent.name))
        except CorruptPartError as error:
            logger.warning("version %s is passed over: %s", path.parent.name, error)
    return sorted(found, key=lambda snapshot: (snapshot.created_at, snapshot.version))


def versions(layout: DatasetLayout) -> list[str]:
    """Names of the complete snapshots, oldest first."""
    return [snapshot.version for snapshot in snapshots(layout)]


def was_left(layout: DatasetLayout, version: str) -> bool:
    """Whether a rollback left `version`; no plain rollback returns to it."""
    return (layout.snapshot(version) / LEFT).exists()


def clear_left(layout: DatasetLayout, version: str) -> None:
    """Remove the mark of `version`: it is in force, so no rollback has left it for good."""
    (layout.snapshot(version) / LEFT).unlink(missing_ok=True)


def put_in_force(layout: DatasetLayout, version: str) -> None:
    """Make the complete snapshot `version`, and with it its datastore, the one in force: one rename."""
    write_text(version + "\n", layout.current_snapshot)


def snapshot_rows(layout: DatasetLayout, snapshot: Snapshot, kind: Kind | None = None) -> ds.Dataset:
    """The rows of `snapshot` (schema KNOWLEDGE), of one kind or all, read when asked for."""
    files = [file for file in snapshot.files if kind in (None, file.kind)]
    return files_dataset(layout, snapshot.version, files)


def files_dataset(layout: DatasetLayout, version: str, files: list[SnapshotFile]) -> ds.Dataset:
    """The rows of some files of a version, schema KNOWLEDGE."""
    folder = layout.snapshot(version)
    return parquet_dataset([folder / file.path for file in files], KNOWLEDGE)


def read_columns(layout: DatasetLayout, snapshot: Snapshot, columns: list[str]) -> pa.Table:
    """`columns` of all rows. Raises `CorruptPartError` if a file is missing or unreadable."""
    try:
        return snapshot_rows(layout, snapshot).to_table(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"snapshot {snapshot.version}: {str(error).splitlines()[0]}") from error


def verify_files(layout: DatasetLayout, version: str, files: list[SnapshotFile]) -> None:
    """Compare every file with its checksum; `CorruptPartError` names the first that differs."""
    folder = layout.snapshot(version)

    def check(file: SnapshotFile) -> None:
        path = folder / file.path
        try:
            digest = sha256_of_file(path)
        except OSError as error:
            raise CorruptPartError(f"{path}: {error.strerror}") from error
        if digest != file.sha256:
            raise CorruptPartError(f"{path}: its content is not what {SUCCESS} says")

    with ThreadPoolExecutor(NUM_CHECK_THREADS) as threads:
        list(threads.map(check, files))
