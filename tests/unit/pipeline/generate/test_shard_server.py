import logging
import re
from types import SimpleNamespace

import psutil
import pytest

from pipeline.errors import StorageError, UploadError
from pipeline.generate import shard_server
from pipeline.generate.shard_server import ShardServer
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from tests.generation import ToyWorker, make_plan, make_spec


@pytest.fixture
def server(tmp_path, monkeypatch):
    layout = RunLayout(tmp_path)
    write_parquet(make_plan(1, 4), layout.plan)
    monkeypatch.setattr(shard_server, "redirect_output", lambda _: None)  # this process is the tests'
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return ShardServer(ToyWorker, make_spec(layout), layout, [])


@pytest.mark.parametrize(
    ("error", "is_fatal", "rows_are_innocent"),
    [
        (StorageError("/x: no space left on device"), True, False),
        (UploadError("s3://b/x: cannot be written: reset"), False, True),
        (ValueError("planted"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_full_disk_of_the_run_ends_the_run(server, monkeypatch, error, is_fatal, rows_are_innocent):
    def fail(*_):
        raise error

    monkeypatch.setattr(shard_server, "commit_part", fail)
    receipt = server.run_shard("item-00000", {}, False)
    assert str(error) in receipt.error
    assert (receipt.fatal is error, receipt.rows_are_innocent) == (is_fatal, rows_are_innocent)


GIB = 2**30


@pytest.mark.parametrize(
    ("available", "total", "code", "message"),
    [
        (1, 64, 1, r"^no memory: 6[67]\.\d of 68\.7 GB used on \S+, and [45]\.\d GB wanted; /models/toy: "),
        (20, 64, 2, "^/models/toy: the worker could not start: ValueError: cache"),
        (1, 3, 2, "^/models/toy: the worker could not start: ValueError: cache"),  # would never be enough
    ],
)
def test_a_start_without_memory_is_no_wrong_configuration(
    server, monkeypatch, available, total, code, message
):
    status = SimpleNamespace(available=available * GIB, total=total * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: status)
    own = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GIB // 4))
    monkeypatch.setattr(psutil, "Process", lambda: own)
    error = server._as_start_error(ValueError("cache"))
    assert error.exit_code == code and re.search(message, str(error))


def test_a_missing_file_is_not_put_down_to_a_full_machine(server, monkeypatch):
    status = SimpleNamespace(available=GIB, total=64 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: status)
    assert server._as_start_error(OSError("no weights")).exit_code == 2
