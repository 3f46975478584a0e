"""One process at a time works on a run, and one on a dataset's published data."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from pipeline.errors import BusyError, GenerationError, StorageError
from pipeline.storage.files import write_text
from pipeline.storage.location import is_remote

HEARTBEAT_SEC = 15.0
STALE_SEC = 120.0  # an owner on another machine that was silent for so long is dead


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; raise `GenerationError` if another process holds it.

    The kernel frees it when the process ends, however it ends. A file system without locks is used
    without one. In an object store see `pipeline.storage.object_lock`.
    """
    if is_remote(folder):
        with _exclusive_object(folder):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GenerationError(f"{folder}: another process is generating this run") from error
        except OSError:  # no locks on this file system
            pass
        yield


@contextmanager
def _exclusive_object(folder: Path) -> Iterator[None]:
    try:
        with owned(folder / ".lock", folder.name):
            yield
    except BusyError as error:
        raise GenerationError(str(error)) from error


@dataclass(frozen=True)
class Owner:
    """Who holds a lock. Times are seconds since 1970."""

    host: str
    pid: int
    process_started_at: float
    started_at: float
    alive_at: float
    run_id: str

    @classmethod
    def this_process(cls, run_id: str) -> "Owner":
        """This process, from now on."""
        now = time.time()
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), started, now, now, run_id)

    def is_alive(self) -> bool:
        """Whether the owner still runs: its process here, its heartbeat on another machine."""
        if self.host != socket.gethostname():
            return time.time() - self.alive_at < STALE_SEC
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started_at) < 1.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started_at, UTC)
        minutes = max(0, round((time.time() - self.started_at) / 60))
        return (
            f"{self.run_id} on {self.host}, process {self.pid}, since {since:%Y-%m-%d %H:%M} UTC "
            f"({minutes // 60} h {minutes % 60} min)"
        )


class OwnedLock:
    """A held lock; `rename` tells readers which run the owner works on."""

    def __init__(self, record: Path, owner: Owner) -> None:
        self._record = record
        self._owner = owner
        self._guard = threading.Lock()
        self._released = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def rename(self, run_id: str) -> None:
        """The owner works on `run_id` from now on."""
        with self._guard:
            self._owner = replace(self._owner, run_id=run_id)
        self._write()

    def release(self) -> None:
        """Remove the record."""
        self._released.set()
        self._thread.join()
        self._record.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SEC):
            with suppress(OSError, StorageError):  # a full disk must not end the night here
                self._write()

    def _write(self) -> None:
        with self._guard:
            self._owner = replace(self._owner, alive_at=time.time())
            write_text(json.dumps(asdict(self._owner), indent=1) + "\n", self._record)


@contextmanager
def owned(path: Path, run_id: str) -> Iterator[OwnedLock]:
    """Hold the lock at `path` for work on `run_id`; raise `BusyError` naming the owner if one is alive.

    The kernel's lock on `path` decides where the file system has one: it ends with its process, however
    that ends. `<path>.owner` tells a person, and decides where there are no kernel locks or where they do
    not reach other machines: an owner is dead if its process is gone, or on another machine if its
    heartbeat is `STALE_SEC` old.
    """
    if is_remote(path):
        from pipeline.storage.object_lock import owned_object

        with owned_object(path, run_id) as lock:
            yield lock
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_name(path.name + ".owner")
    with path.open("a") as file:
        has_kernel_lock = _locked_by_kernel(file, path, record)
        owner = read_owner(record)
        if owner is not None and owner.is_alive() and not (has_kernel_lock and _is_here(owner)):
            raise BusyError(busy(path, owner))
        if not has_kernel_lock:
            _claim(record, path)
        lock = OwnedLock(record, Owner.this_process(run_id))
        try:
            yield lock
        finally:
            lock.release()


def read_owner(record: Path) -> Owner | None:
    """Who the record names; None if there is none or it cannot be read."""
    try:
        return Owner(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_here(owner: Owner) -> bool:
    """With the kernel's lock in hand no other process of this machine holds it, whatever the record says."""
    return owner.host == socket.gethostname()


def _locked_by_kernel(file: IO[str], path: Path, record: Path) -> bool:
    """True with the kernel's lock, False on a file system without locks; raises `BusyError` if it is held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(busy(path, read_owner(record))) from error
    except OSError:
        return False
    return True


def _claim(record: Path, path: Path) -> None:
    """Without kernel locks: of several that find the same dead owner one goes on, by exclusive creation."""
    with suppress(FileNotFoundError):
        record.rename(record.with_name(f"{record.name}.dead-{os.getpid()}"))
        record.with_name(f"{record.name}.dead-{os.getpid()}").unlink()
    try:
        os.close(os.open(record, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError as error:
        raise BusyError(busy(path, read_owner(record))) from error


def busy(path: Path, owner: Owner | None) -> str:
    """What the second one is told."""
    return f"{path.parent}: another process works on this dataset: {owner or 'it has just started'}"
