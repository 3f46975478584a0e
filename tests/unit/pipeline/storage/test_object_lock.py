"""The lock of an object store, in one that fsspec keeps in memory."""

import json
import logging
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.errors import BusyError
from pipeline.storage import lock as lock_module
from pipeline.storage.location import data_path
from pipeline.storage.lock import Owner, owned, read_owner


class Unreachable(Exception):  # noqa: N818  as botocore's: of no class that Python knows
    """What a store that is out of reach raises."""


@pytest.fixture
def path() -> Path:
    return data_path(f"memory://{uuid.uuid4().hex}/movielens") / "night.lock"


@pytest.fixture
def store(path, monkeypatch) -> "Store":
    monkeypatch.setattr(lock_module, "HEARTBEAT_SEC", 0.01)
    return Store(path.fs, monkeypatch)


class Store:
    """A store that can be cut off."""

    def __init__(self, filesystem, monkeypatch) -> None:
        self.is_cut_off = False
        self.num_refused = 0
        for name in ("pipe_file", "put_file", "_open", "cat_file", "rm_file"):
            real = getattr(filesystem, name)
            monkeypatch.setattr(filesystem, name, self.unless_cut_off(real))

    def unless_cut_off(self, real):
        def call(*arguments, **options):
            if self.is_cut_off:
                self.num_refused += 1
                raise Unreachable("Could not connect to\nthe endpoint")
            return real(*arguments, **options)

        return call


def until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def the_record(path: Path) -> Path:
    (record,) = path.parent.glob("night.lock.owner-*")
    return record


def test_a_store_out_of_reach_for_a_while_does_not_end_the_heartbeat(path, store, caplog):
    with owned(path, "night") as lock:
        store.is_cut_off = True
        until(lambda: store.num_refused >= 5)
        lock.require_held()
        store.is_cut_off = False
        heard = read_owner(the_record(path)).alive_at
        until(lambda: read_owner(the_record(path)).alive_at > heard)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"{path}.owner-000001: no heartbeat, tried again: Could not connect to the endpoint"]
    assert not list(path.parent.glob("night.lock*"))


def test_a_lock_that_was_out_of_reach_for_too_long_is_not_held(path, store, monkeypatch):
    with owned(path, "night") as lock:
        store.is_cut_off = True
        assert lock.is_held()
        monkeypatch.setattr(lock_module, "STALE_SEC", 0.0)
        with pytest.raises(BusyError, match="lost the lock; its record could not be read or written"):
            lock.require_held()
        monkeypatch.undo()
        store.is_cut_off = False
        lock.require_held()


def test_a_record_that_cannot_be_removed_does_not_hide_what_was_done(path, store, caplog):
    with owned(path, "night"):
        store.is_cut_off = True
    assert read_owner(path) is None and "Could not connect to the endpoint" in caplog.text


def test_an_owner_whose_record_cannot_be_read_is_not_taken_for_dead(path, store, monkeypatch):
    record = path.with_name("night.lock.owner-000003")
    record.write_text(json.dumps(asdict(replace(Owner.this_process("before"), host="elsewhere"))))
    monkeypatch.setattr("pipeline.storage.object_lock.owner_in", store.unless_cut_off(lock_module.owner_in))
    store.is_cut_off = True
    with pytest.raises(Unreachable), owned(path, "night"):
        pass
    assert [found.name for found in path.parent.glob("night.lock*")] == [record.name]


def write_owner(record: Path, **changes) -> None:
    record.write_text(json.dumps(asdict(replace(Owner.this_process("before"), host="elsewhere", **changes))))


@pytest.mark.parametrize("ahead_sec", [0.0, 3600.0])  # of the other machine's clock
def test_a_retry_on_another_machine_waits_until_the_dead_owner_was_silent_for_long_enough(
    path, monkeypatch, ahead_sec
):
    monkeypatch.setattr(lock_module, "STALE_SEC", 0.5)
    monkeypatch.setattr(lock_module, "HEARTBEAT_SEC", 0.1)
    monkeypatch.setattr(lock_module, "WATCH_SEC", 0.05)
    write_owner(path.with_name("night.lock.owner-000007"), alive_at=time.time() + ahead_sec)
    began = time.monotonic()
    with owned(path, "the retry"):
        assert 0.4 < time.monotonic() - began < 30
        assert [found.name for found in path.parent.glob("night.lock*")] == ["night.lock.owner-000008"]


@pytest.mark.parametrize("behind_sec", [0.0, 600.0])  # of the other machine's clock
def test_an_owner_on_another_machine_that_is_heard_again_keeps_its_lock(path, monkeypatch, behind_sec):
    monkeypatch.setattr(lock_module, "WATCH_SEC", 0.05)
    record = path.with_name("night.lock.owner-000007")
    write_owner(record, started_at=1.0, alive_at=time.time() - behind_sec - 20)
    monkeypatch.setattr(
        lock_module.time,
        "sleep",
        lambda _: write_owner(record, started_at=1.0, alive_at=time.time() - behind_sec),
    )
    with pytest.raises(BusyError, match="before on elsewhere"), owned(path, "the retry"):
        pass
    assert the_record(path).name == record.name
