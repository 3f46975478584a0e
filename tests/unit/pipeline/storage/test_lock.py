import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.errors import BusyError
from pipeline.storage import lock as lock_module
from pipeline.storage.lock import Owner, living_owner, owned, read_owner

HOLD = """
import sys, time
from pathlib import Path
from pipeline.storage.lock import owned
with owned(Path(sys.argv[1]), "2026-11-22"):
    print("held", flush=True)
    time.sleep(60)
"""

# Without kernel locks: waits for the others, then tries once; a winner holds on until its input ends.
CLAIM = """
import sys, time
from pathlib import Path
from pipeline.errors import BusyError
from pipeline.storage import lock

def no_kernel_lock(*_):
    raise OSError(38, "Function not implemented")

lock.fcntl.flock = no_kernel_lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock.owned(Path(sys.argv[1]), "n"):
        print("held", flush=True)
        sys.stdin.read()
except BusyError as error:
    print("busy", flush=True)
"""
NUM_CLAIMANTS = 4


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "movielens" / "night.lock"


def holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def claimant(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", CLAIM, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def without_kernel_locks(monkeypatch) -> None:
    def fails(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock_module.fcntl, "flock", fails)


def test_a_second_process_is_told_who_works_and_a_dead_one_is_replaced(path):
    first = holder(path)
    try:
        with pytest.raises(BusyError) as error, owned(path, "second"):
            pass
        line = str(error.value)
        assert f"2026-11-22 on {os.uname().nodename}, process {first.pid}, since " in line
        assert "(0 h 0 min)" in line and "\n" not in line and error.value.exit_code == 2
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert read_owner(path.with_name("night.lock.owner")).pid == first.pid, "a killed owner leaves its record"
    with owned(path, "second"):
        assert read_owner(path.with_name("night.lock.owner")).run_id == "second"
    assert read_owner(path.with_name("night.lock.owner")) is None


def test_the_record_follows_the_run(path):
    with owned(path, "the night of 2026-11-22") as lock:
        lock.rename("2026-11-22-2")
        assert read_owner(path.with_name("night.lock.owner")).run_id == "2026-11-22-2"


def write_owner(path: Path, **changes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = replace(Owner.this_process("before"), **changes)
    path.with_name("night.lock.owner").write_text(json.dumps(asdict(owner)))


@contextmanager
def beating(path: Path, behind_sec: float = 0.0):
    """An owner on another machine, whose clock is late by `behind_sec`, and whose heartbeat goes on."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.02):
            write_owner(path, host="elsewhere", started_at=1.0, alive_at=time.time() - behind_sec)

    write_owner(path, host="elsewhere", started_at=1.0, alive_at=time.time() - behind_sec)
    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(lock_module, "STALE_SEC", 1.0)
    monkeypatch.setattr(lock_module, "HEARTBEAT_SEC", 0.1)
    monkeypatch.setattr(lock_module, "WATCH_SEC", 0.05)


@pytest.mark.parametrize("behind_sec", [0.0, 600.0])  # of the other machine's clock
def test_an_owner_on_another_machine_lives_as_long_as_its_heartbeat(path, quick, behind_sec):
    with beating(path, behind_sec), pytest.raises(BusyError, match="before on elsewhere"), owned(path, "n"):
        pass
    write_owner(path, host="elsewhere", alive_at=time.time() - lock_module.STALE_SEC - 1)
    with owned(path, "n"):
        pass


@pytest.mark.parametrize("ahead_sec", [0.0, 3600.0])  # of the other machine's clock
def test_a_retry_on_another_machine_waits_for_the_dead_owner_to_be_silent_for_long_enough(
    path, quick, caplog, ahead_sec
):
    caplog.set_level(logging.INFO)
    write_owner(path, host="elsewhere", alive_at=time.time() + ahead_sec)
    began = time.monotonic()
    with owned(path, "the retry") as lock:
        assert 0.9 < time.monotonic() - began < 30
        lock.require_held()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        f"{path}: waiting up to 1 s to see whether its owner lives: before on elsewhere, process"
    )


def test_a_retry_on_another_machine_goes_on_as_soon_as_the_owner_has_ended(path, monkeypatch):
    monkeypatch.setattr(lock_module, "WATCH_SEC", 0.05)
    write_owner(path, host="elsewhere")
    ending = threading.Timer(0.2, path.with_name("night.lock.owner").unlink)
    ending.start()
    with owned(path, "the retry") as lock:
        lock.require_held()


def test_a_network_disk_that_keeps_a_dead_machines_lock_for_a_while_is_waited_for(path, quick, monkeypatch):
    write_owner(path, host="elsewhere")
    real, refusals = lock_module.fcntl.flock, [BlockingIOError()]

    def flock(*arguments):
        if refusals:
            raise refusals.pop()
        return real(*arguments)

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)
    with owned(path, "the retry") as lock:
        lock.require_held()


def test_without_kernel_locks_the_record_decides(path, monkeypatch):
    without_kernel_locks(monkeypatch)
    monkeypatch.setattr(lock_module, "SETTLE_SEC", 0.0)
    with owned(path, "first"), pytest.raises(BusyError, match="first on"), owned(path, "second"):
        pass
    write_owner(path, pid=2**22 + 1)  # no such process
    with owned(path, "third"):
        pass
    write_owner(path, process_started_at=1.0)  # the number belongs to another process now
    with owned(path, "fourth"):
        pass


def test_an_unreadable_record_is_nobodys(path):
    path.parent.mkdir(parents=True)
    path.with_name("night.lock.owner").write_text('{"host": ')
    with owned(path, "n"):
        pass


def test_of_several_that_find_one_owner_dead_one_goes_on(path):
    write_owner(path, pid=2**22 + 1)  # no such process
    claimants = [claimant(path) for _ in range(NUM_CLAIMANTS)]
    for process in claimants:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.stdout.readline().strip() for process in claimants]
    for process in claimants:
        process.communicate()
    assert sorted(outcomes) == ["busy"] * (NUM_CLAIMANTS - 1) + ["held"]


def test_one_that_reads_the_dead_owner_late_does_not_share_the_lock(path, monkeypatch):
    """It writes its name over a living owner's, which finds out before it puts anything in force."""
    monkeypatch.setattr(lock_module, "HEARTBEAT_SEC", 0.01)
    record = path.with_name("night.lock.owner")
    with owned(path, "first") as lock:
        lock.require_held()
        write_owner(path, host="elsewhere", started_at=1.0)
        usurper = record.read_text()
        with pytest.raises(BusyError, match="lost the lock; it belongs to before on elsewhere"):
            lock.require_held()
        time.sleep(0.05)
        lock.rename("second")
        assert lock.lost and record.read_text() == usurper, "the heartbeat leaves another's record alone"
    assert record.read_text() == usurper and living_owner(path).host == "elsewhere"


def test_a_lock_whose_record_is_gone_is_lost(path):
    with owned(path, "first") as lock:
        path.with_name("night.lock.owner").unlink()  # another one took over, ended, and released it
        with pytest.raises(BusyError, match="belongs to nobody now"):
            lock.require_held()
