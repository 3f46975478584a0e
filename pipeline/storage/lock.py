"""One process at a time works on a run, and one on a dataset's published data."""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil

from pipeline.errors import BusyError
from pipeline.storage.files import write_text
from pipeline.storage.location import is_remote

logger = logging.getLogger(__name__)
HEARTBEAT_SEC = 15.0
STALE_SEC = 120.0  # an owner on another machine that was silent for so long is dead
MAX_CLOCK_SKEW_SEC = 3600.0  # between two machines: before that, an old heartbeat is watched first
WATCH_SEC = 2.0  # between two looks at the heartbeat of an owner on another machine
SETTLE_SEC = 1.0  # without kernel locks: others that found the same dead owner have written by then


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; raise `BusyError` if another process holds it.

    The kernel frees it when the process ends, however it ends. A file system without locks is used
    without one. In an object store see `pipeline.storage.object_lock`.
    """
    if is_remote(folder):
        with owned(folder / ".lock", folder.name):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{folder}: another process is generating this run") from error
        except OSError:  # no locks on this file system
            pass
        yield


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

    def is_here(self) -> bool:
        """Whether the owner is a process of this machine."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether the owner still runs: its process here, its heartbeat on another machine."""
        if not self.is_here():
            return time.time() - self.alive_at < STALE_SEC
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started_at) < 1.0
        except psutil.Error:
            return False

    def may_live(self) -> bool:
        """Whether the owner may run although `is_alive` denies it: another machine's clock may be late."""
        is_recent = time.time() - self.alive_at < STALE_SEC + MAX_CLOCK_SKEW_SEC
        return self.is_alive() or (not self.is_here() and is_recent)

    def is_same(self, other: "Owner") -> bool:
        """Whether both are one holding of the lock, whatever it works on and when it was last heard."""
        mine = (self.host, self.pid, self.started_at)
        return mine == (other.host, other.pid, other.started_at)

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started_at, UTC)
        minutes = max(0, round((time.time() - self.started_at) / 60))
        return (
            f"{self.run_id} on {self.host}, process {self.pid}, since {since:%Y-%m-%d %H:%M} UTC "
            f"({minutes // 60} h {minutes % 60} min)"
        )


class OwnedLock:
    """A held lock; `rename` tells readers which run the owner works on.

    Whoever finds this owner's heartbeat too old replaces the record, and then the lock is `lost`: this
    process may have been suspended, or cut off from the disk. It finds out at the next heartbeat. While the
    record cannot be read the lock counts as held, until the last heartbeat that was written is too old.
    """

    def __init__(self, record: Path, owner: Owner) -> None:
        self._record = record
        self._owner = owner
        self._guard = threading.Lock()
        self._released = threading.Event()
        self.lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def rename(self, run_id: str) -> None:
        """The owner works on `run_id` from now on."""
        with self._guard:
            self._owner = replace(self._owner, run_id=run_id)
        self._write(write_owner)

    def require_held(self) -> None:
        """Raise `BusyError` if another process took the lock over: nothing may be put in force then."""
        if self.is_held():
            return
        why = f"its record could not be read or written for {STALE_SEC:.0f} s"
        if self.lost:
            why = f"it belongs to {read_owner(self._record) or 'nobody'} now"
        raise BusyError(f"{self._record}: this process lost the lock; {why}")

    def release(self) -> None:
        """Remove the record, if it is still this owner's. One that cannot be removed is soon too old."""
        self._released.set()
        self._thread.join()
        try:
            if self.is_held():
                self._record.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001  each store raises classes of its own
            logger.warning("%s: not removed: %s", self._record, _reason(error))

    def _beat(self) -> None:
        is_told = False
        while not self._released.wait(HEARTBEAT_SEC):
            try:
                self._write(_write_once)
                is_told = False
            except Exception as error:  # noqa: BLE001  a full disk or a store out of reach ends no night here
                if not is_told:
                    logger.warning("%s: no heartbeat, tried again: %s", self._record, _reason(error))
                is_told = True

    def is_held(self) -> bool:
        """Whether the record still names this owner. A record that is gone was replaced and released."""
        try:
            found = owner_in(self._record)
        except Exception:  # noqa: BLE001  disk or store do not answer, each with classes of its own
            return not self.lost and time.time() - self._owner.alive_at < STALE_SEC
        if found is None or not found.is_same(self._owner):
            self.lost = True
        return not self.lost

    def _write(self, write: Callable[[Owner, Path], None]) -> None:
        with self._guard:
            if self.is_held():
                owner = replace(self._owner, alive_at=time.time())
                write(owner, self._record)
                self._owner = owner


def write_owner(owner: Owner, record: Path) -> None:
    """Replace `record` atomically."""
    write_text(_as_text(owner), record)


def _write_once(owner: Owner, record: Path) -> None:
    """As `write_owner`, without its further tries: the next heartbeat is one."""
    if is_remote(record):
        remote: Any = record
        remote.fs.pipe_file(remote.path, _as_text(owner).encode())
    else:
        write_owner(owner, record)


def _as_text(owner: Owner) -> str:
    return json.dumps(asdict(owner), indent=1) + "\n"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def owned(path: Path, run_id: str) -> Iterator[OwnedLock]:
    """Hold the lock at `path` for work on `run_id`; raise `BusyError` naming the owner if one is alive.

    The kernel's lock on `path` decides where the file system has one: it ends with its process, however
    that ends. `<path>.owner` tells a person, and decides where there are no kernel locks or where they do
    not reach other machines: an owner is dead if its process is gone, or on another machine if its
    heartbeat is `STALE_SEC` old, which is waited for: the retry of a lost pod begins elsewhere before that.
    Of several that find one dead, the last to write its name has the lock.
    """
    if is_remote(path):
        from pipeline.storage.object_lock import owned_object

        with owned_object(path, run_id) as lock:
            yield lock
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_name(path.name + ".owner")
    with path.open("a") as file:
        has_kernel_lock = _locked_by_kernel(file)
        owner = read_owner(record)
        if owner is not None and not owner.is_here() and owner.may_live():
            wait_until_silent(path, record, owner)
            owner = None
            # A network disk may have kept the dead machine's lock for a while.
            has_kernel_lock = _locked_by_kernel(file) if has_kernel_lock is None else has_kernel_lock
        # With the kernel's lock in hand no other process of this machine has it, whatever the record says.
        if has_kernel_lock is None or (not has_kernel_lock and owner is not None and owner.is_alive()):
            raise BusyError(busy(path, read_owner(record)))
        lock = OwnedLock(record, _claimed(record, path, run_id, 0.0 if has_kernel_lock else SETTLE_SEC))
        try:
            yield lock
        finally:
            lock.release()


def read_owner(record: Path) -> Owner | None:
    """Who the record names; None if there is none or it cannot be read."""
    try:
        return owner_in(record)
    except Exception:  # noqa: BLE001  each store raises classes of its own
        return None


def owner_in(record: Path) -> Owner | None:
    """Who the record names; None if there is none, or it names nobody. Raises what reading it raises."""
    try:
        return _parsed(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def living_owner(path: Path) -> Owner | None:
    """Who holds the lock at `path` now, None if nobody does or its owner is dead."""
    name = path.name + (".owner-*" if is_remote(path) else ".owner")
    owners = [read_owner(record) for record in path.parent.glob(name)]
    return next((owner for owner in owners if owner is not None and owner.is_alive()), None)


def _parsed(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def wait_until_silent(path: Path, record: Path, owner: Owner) -> None:
    """Return once `owner`, on another machine, has ended or was not heard for `STALE_SEC`.

    Whatever the two machines' clocks say, it is watched for two heartbeats. Raises `BusyError` as soon as
    its heartbeat goes on, or another one has its place.
    """
    logger.info("%s: waiting up to %.0f s to see whether its owner lives: %s", path, STALE_SEC, owner)
    started = time.monotonic()
    watched_until, waited_until = started + 2 * HEARTBEAT_SEC, started + STALE_SEC
    while time.monotonic() < (waited_until if owner.is_alive() else watched_until):
        time.sleep(WATCH_SEC)
        try:
            now = owner_in(record)
        except Exception:  # noqa: BLE001  not heard; each store raises classes of its own
            continue
        if now is None:
            return
        if now != owner:
            raise BusyError(busy(path, now))


def _locked_by_kernel(file: IO[str]) -> bool | None:
    """True with the kernel's lock, None if another process has it, False on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _claimed(record: Path, path: Path, run_id: str, settle_sec: float) -> Owner:
    """Write this process's name over a dead owner's, and see whether it is the one that stays."""
    owner = Owner.this_process(run_id)
    write_owner(owner, record)
    time.sleep(settle_sec)
    winner = read_owner(record)
    if winner is None or not winner.is_same(owner):
        raise BusyError(busy(path, winner))
    return owner


def busy(path: Path, owner: Owner | None) -> str:
    """What the second one is told."""
    return f"{path.parent}: another process works on this dataset: {owner or 'it has just started'}"
