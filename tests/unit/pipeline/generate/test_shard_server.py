import logging

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
