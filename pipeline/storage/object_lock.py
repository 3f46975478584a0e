"""Locks where there are neither kernel locks nor renames: in an object store.

A lock is an object `<path>.owner-<number>` that names its owner and carries a heartbeat. Objects are
created exclusively (the store's "only if it is not there"), so of several that find a dead owner one goes on:
the dead owner's object stays until the next number is taken. An owner on another machine is watched until its
heartbeat goes on, or is too old.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import BusyError
from pipeline.storage.lock import OwnedLock, Owner, busy, owner_in, read_owner, wait_until_silent


@contextmanager
def owned_object(path: Path, run_id: str) -> Iterator[OwnedLock]:
    """Hold the lock at remote `path` for work on `run_id`; raise `BusyError` naming a living owner."""
    owner = Owner.this_process(run_id)
    lock = OwnedLock(_claimed(path, owner), owner)
    try:
        yield lock
    finally:
        lock.release()


def _claimed(path: Path, owner: Owner) -> Path:
    before = _records(path)
    silent = [_silent(path, record) for record in before]
    number = max((int(record.name.rpartition("-")[2]) for record in before), default=0) + 1
    record = path.with_name(f"{path.name}.owner-{number:06d}")
    if not _created(record, owner):
        raise BusyError(busy(path, read_owner(record)))
    try:
        # One that began before this one but is seen only now, after others had come and gone.
        _reject_living(path, [other for other in _records(path) if other.name != record.name], silent)
    except BusyError:
        record.unlink(missing_ok=True)
        raise
    for dead in before:
        dead.unlink(missing_ok=True)
    return record


def _records(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.owner-*"))


def _silent(path: Path, record: Path) -> Owner | None:
    """Who `record` names, once that owner is known to be dead; raises `BusyError` if it lives.

    A record that cannot be read is no dead owner's: what reading it raises goes on.
    """
    owner = owner_in(record)
    if owner is not None and owner.may_live():
        if owner.is_here():
            raise BusyError(busy(path, owner))
        wait_until_silent(path, record, owner)
    return owner


def _reject_living(path: Path, records: list[Path], silent: list[Owner | None]) -> None:
    for record in records:
        owner = owner_in(record)
        if owner is not None and owner not in silent and owner.is_alive():
            raise BusyError(busy(path, owner))


def _created(record: Path, owner: Owner) -> bool:
    """Store the record unless it is there."""
    remote: Any = record
    try:
        remote.fs.pipe_file(remote.path, json.dumps(asdict(owner)).encode(), mode="create")
    except FileExistsError:
        return False
    return True
