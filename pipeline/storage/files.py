"""Atomic writes: a reader never sees half a file.

Locally a file is written under a temporary name, flushed, then renamed. An object store has no rename; its
upload of a whole object is what happens at once or not at all.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import FULL, CorruptPartError, StorageError, UploadError
from pipeline.storage.location import is_remote

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".tmp-"
ROWS_PER_DIGEST = 65_536
UPLOAD_PAUSES_SEC = (1.0, 4.0, 16.0)  # between the tries; each store's client has tried by itself before


@contextmanager
def naming_full_storage(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a quota, met in the block into a `StorageError` of one line that
    names `path`. If `path` is in an object store, the disk was this machine's: an `UploadError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, errno.EROFS):
            raise
        reason = os.strerror(error.errno).lower()
        if is_remote(path):
            raise UploadError(f"{path}: cannot be written: {reason} on {socket.gethostname()}") from error
        remedy = "make it writable" if error.errno == errno.EROFS else "free some space"
        raise StorageError(
            f"{path}: {reason}; what is finished is kept, {remedy} and run again to resume"
        ) from error


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Yield a local temporary path; it becomes `path` when the block ends without error.

    Raises `StorageError` if the disk is full, `UploadError` if the store does not take it; then nothing is
    left behind.
    """
    replaced = _uploaded if is_remote(path) else _renamed
    with naming_full_storage(path), replaced(path) as temporary:
        yield temporary


@contextmanager
def _uploaded(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        upload(temporary, path)


def upload(local: Path, path: Path) -> None:
    """Make the content of file `local` the object `path`; raises `UploadError` after several tries."""
    remote: Any = path
    for pause_sec in (*UPLOAD_PAUSES_SEC, None):
        try:
            remote.fs.put_file(str(local), remote.path)
            return
        except Exception as error:  # each store raises classes of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            is_refused = isinstance(error, FileNotFoundError | PermissionError)  # no bucket, no right
            if is_refused or pause_sec is None:
                raise UploadError(f"{path}: cannot be written: {reason}") from error
        logger.warning("%s: %s; tried again in %.0f s", path, reason, pause_sec)
        time.sleep(pause_sec)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(table: pa.Table, path: Path) -> str:
    """Write `table` to `path`, zstd-compressed, atomically; the sha256 of the file, hex."""
    with replaced_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        return sha256_of_file(temporary)


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with replaced_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Write `value` to `path` as indented JSON with sorted keys, atomically."""
    write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", path)


def read_json(path: Path, complaint: str = "unreadable") -> dict[str, Any] | None:
    """What a JSON file holds, None if there is none; `CorruptPartError` with `complaint` if it is no JSON."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptPartError(f"{path}: {complaint}: {error}") from error
    return content


def remove_folder(folder: Path) -> None:
    """Remove `folder` and all below it, if it is there."""
    if not is_remote(folder):
        if folder.exists():
            shutil.rmtree(folder)
        return
    remote: Any = folder
    with suppress(FileNotFoundError):
        remote.fs.rm(remote.path, recursive=True)


def sha256_of_file(path: Path) -> str:
    """The sha256 of the file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The sha256 of `value` as canonical JSON, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sha256_of_rows(table: pa.Table) -> str:
    """The sha256 of the rows of `table` in their order, hex; however the table is cut into chunks."""
    digest = hashlib.sha256()
    for start in range(0, table.num_rows, ROWS_PER_DIGEST):
        for batch in table.slice(start, ROWS_PER_DIGEST).combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
