"""What must be local although the data is not: folders to memory-map, files to append to, folders to build.

With a local data directory all of these are the files themselves.
"""

import contextlib
import fcntl
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError
from pipeline.storage.files import TEMPORARY_PREFIX, naming_full_storage, upload
from pipeline.storage.location import cache_folder, cached_at, is_remote

logger = logging.getLogger(__name__)
NUM_KEPT = 3  # folders of one kind that a machine keeps, for example versions of the datastore


def fetched(folder: Path, check: Callable[[Path], None]) -> Path:
    """A local folder with the content of immutable `folder`: itself, or this machine's copy.

    Of several processes one copies, the others wait for it. `check` is given a fresh copy, and raises if
    it is not whole; only then it gets its name.
    """
    if not is_remote(folder):
        return folder
    copy = cached_at(folder)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (copy.parent / f".lock-{folder.name}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            _fetch(folder, copy, check)
            _forget_oldest(copy.parent)
        copy.touch()
    return copy


def _fetch(folder: Path, copy: Path, check: Callable[[Path], None]) -> None:
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
            temporary.rename(copy)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
