"""A full disk: a small tmpfs that parts, the datastore and snapshots really fill."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from drafters.datastore import Datastore
from pipeline.errors import StorageError
from pipeline.generate.dispatch import generate_shards
from pipeline.pools import extend_pools, version_in_force
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import committed_shards, finished_shards
from tests.generation import FINGERPRINT, ToyWorker, make_spec
from tests.integration.pipeline.faults.toy_runs import assert_complete, write_plan

SIZE = "size=2m"
BYTES_PER_TEXT = 100_000


class LongTextWorker(ToyWorker):
    """Texts that do not compress: a part takes about half a megabyte."""

    def run_shard(self, shard, rows):
        result = super().run_shard(shard, rows)
        texts = [os.urandom(BYTES_PER_TEXT // 2).hex() for _ in range(rows.num_rows)]
        column = result.knowledge.schema.get_field_index("text")
        field = result.knowledge.schema.field("text")
        knowledge = result.knowledge.set_column(column, field, pa.array(texts))
        return type(result)(shard, knowledge, result.failed)


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


def fill(disk: Path, free_bytes: int) -> None:
    stat = os.statvfs(disk)
    (disk / "other").write_bytes(b"x" * (stat.f_bavail * stat.f_bsize - free_bytes))


def test_a_disk_that_fills_up_with_parts_ends_the_run_with_one_line_and_keeps_what_is_done(node, disk):
    layout = RunLayout(disk / "toy" / "runs" / "run")
    plan = write_plan(layout, num_shards=14)
    spec = make_spec(layout, num_workers=1, address="here")
    with pytest.raises(StorageError) as error:
        generate_shards(plan, spec, layout, LongTextWorker)
    line = str(error.value)
    assert line.startswith(f"{layout.parts}/item-") and "no space left on device" in line
    assert "\n" not in line and error.value.exit_code == 1
    done = committed_shards(layout)
    assert 0 < len(done) < 14 and set(done) == finished_shards(layout, FINGERPRINT, plan)
    assert not list(disk.rglob(".tmp-*"))
    before = {shard: layout.part(shard).read_bytes() for shard in done}

    enlarge(disk)
    generate_shards(plan, spec, layout, LongTextWorker)
    assert_complete(layout, plan)
    assert {shard: layout.part(shard).read_bytes() for shard in done} == before


def test_a_disk_that_is_full_when_pools_are_built_leaves_the_version_in_force(node, disk):
    dataset = DatasetLayout(disk / "toy")
    layout = dataset.run("run")
    plan = write_plan(layout, num_shards=3)
    generate_shards(plan, make_spec(layout, num_workers=1, address="here"), layout, ToyWorker)
    fill(disk, free_bytes=8192)
    with pytest.raises(StorageError, match=rf"^{dataset.datastore}/run\S*: no space left on device; what is"):
        extend_pools(dataset, layout, None, "0", 64)
    assert version_in_force(dataset) is None
    assert not list(disk.rglob(".tmp-*"))

    (disk / "other").unlink()
    assert extend_pools(dataset, layout, None, "0", 64) == "run"
    Datastore.open(dataset.datastore / version_in_force(dataset), "0", 64).verify()


def test_a_disk_that_is_full_leaves_the_old_table_and_nothing_temporary(disk):
    path = disk / "knowledge" / "rows.parquet"
    old = pa.table({"number": [1]})
    write_parquet(old, path)
    large = pa.table({"number": np.random.default_rng(0).random(500_000)})
    with pytest.raises(StorageError, match=rf"^{path}: no space left on device"):
        write_parquet(large, path)
    assert list(path.parent.iterdir()) == [path]
    write_parquet(old, path)
