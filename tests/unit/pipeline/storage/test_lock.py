import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.errors import BusyError
from pipeline.storage import lock as lock_module
from pipeline.storage.lock import Owner, owned, read_owner

HOLD = """
import sys, time
from pathlib import Path
from pipeline.storage.lock import owned
with owned(Path(sys.argv[1]), "2026-11-22"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "movielens" / "night.lock"


def holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
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


def test_an_owner_on_another_machine_lives_as_long_as_its_heartbeat(path):
    write_owner(path, host="elsewhere", alive_at=time.time() - 10)
    with pytest.raises(BusyError, match="before on elsewhere"), owned(path, "n"):
        pass
    write_owner(path, host="elsewhere", alive_at=time.time() - lock_module.STALE_SEC - 1)
    with owned(path, "n"):
        pass


def test_without_kernel_locks_the_record_decides(path, monkeypatch):
    without_kernel_locks(monkeypatch)
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
