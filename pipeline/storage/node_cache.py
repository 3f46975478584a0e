"""What must be local although the data is not: folders to memory-map, files to append to, folders to build.

With a local data directory all of these are the files themselves.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import CorruptPartError, StorageError
from pipeline.storage.files import TEMPORARY_PREFIX, naming_full_storage, upload
from pipeline.storage.location import cache_folder, cached_at, is_remote

logger = logging.getLogger(__name__)
NUM_KEPT = 3  # folders of one kind that a machine keeps, for example versions of the datastore
Check = Callable[[Path], object]
"""Raises `CorruptPartError` if what lies in the folder is not whole."""


def fetched(folder: Path, check: Check, recheck: Check | None = None) -> Path:
    """A local folder with the content of immutable `folder`: itself, or this machine's copy.

    Of several processes one copies, the others wait for it. `check` is given a fresh copy; only if it is
    whole it gets its name. `recheck` (None: `check`) is given the copy that is there already; one that is
    not whole is replaced by a fresh one. So `CorruptPartError` says that `folder` itself is not whole.
    """
    if not is_remote(folder):
        return folder
    with _locked_copy(folder) as copy:
        if not _is_whole(copy, recheck or check):
            _fetch(folder, copy, check)
        copy.touch()
    return copy


def fetched_anew(folder: Path, check: Check) -> Path:
    """Like `fetched`, but what `folder` holds now is read whether there is a copy or not."""
    if not is_remote(folder):
        return folder
    with _locked_copy(folder) as copy:
        _fetch(folder, copy, check)
    return copy


@contextmanager
def _locked_copy(folder: Path) -> Iterator[Path]:
    copy = cached_at(folder)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (copy.parent / f".lock-{folder.name}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield copy


def _is_whole(copy: Path, recheck: Check) -> bool:
    if not copy.exists():
        return False
    try:
        recheck(copy)
    except CorruptPartError as error:
        logger.warning("this copy is replaced: %s", error)
        return False
    return True


def _fetch(folder: Path, copy: Path, check: Check) -> None:
    """Replace `copy` by a fresh one; if that is not whole neither stays, for `folder` is what is broken."""
    temporary = copy.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    remote: Any = folder
    with naming_full_storage(copy):
        try:
            logger.info("copying %s to %s", folder, copy)
            for source in remote.fs.find(remote.path):
                target = temporary / source.removeprefix(remote.path).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                remote.fs.get_file(source, str(target))
            check(temporary)
            _flush(temporary)
            _forget(copy)
            temporary.rename(copy)
        except CorruptPartError:
            _forget(copy)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _forget_oldest(copy.parent)


def _flush(folder: Path) -> None:
    """To the disk with all files: after a power loss a copy is whole or not there."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _forget(copy: Path) -> None:
    """Remove `copy` at once, whether it is there or not: no other process finds half of it."""
    old = copy.with_name(f"{TEMPORARY_PREFIX}old-{copy.name}")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        copy.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _forget_oldest(parent: Path) -> None:
    """Processes that still map a removed folder keep it until they end."""
    copies = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for path in sorted(copies, key=lambda path: path.stat().st_mtime, reverse=True)[NUM_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def built(folder: Path, last: str) -> Iterator[Path]:
    """Yield the local folder below which the block makes a folder of the name of `folder`.

    It is then at `folder`: at once on a local disk; uploaded otherwise, with file `last`, whose presence
    says that it is whole, at the end. If the block raises, what it made under a temporary name is removed.
    """
    root = cache_folder() / f"build-{uuid.uuid4().hex}" if is_remote(folder) else folder.parent
    try:
        with naming_full_storage(folder):
            yield root
            if is_remote(folder):
                _upload_folder(root / folder.name, folder, last)
    finally:
        shutil.rmtree(root / f"{TEMPORARY_PREFIX}{folder.name}", ignore_errors=True)
        if is_remote(folder):
            shutil.rmtree(root, ignore_errors=True)


def _upload_folder(local: Path, folder: Path, last: str) -> None:
    files = sorted(path for path in local.rglob("*") if path.is_file() and path != local / last)
    for path in [*files, local / last]:
        upload(path, folder / path.relative_to(local).as_posix())


@contextmanager
def appendable(path: Path) -> Iterator[Path]:
    """Yield a local file for lines that belong at the end of `path`; a remote one is brought up to date
    when the block ends, however it ends."""
    if not is_remote(path):
        yield path
        return
    copy = cached_at(path)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists():
        with contextlib.suppress(FileNotFoundError):
            copy.write_bytes(path.read_bytes())
    try:
        yield copy
    finally:
        if copy.exists():
            try:
                upload(copy, path)
            except StorageError as error:  # a log must not end the run, nor hide why it ended
                logger.warning("%s", error)
