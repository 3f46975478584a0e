"""A full disk: a small tmpfs that parts, the datastore and snapshots really fill."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafters.datastore import Datastore
from pipeline.errors import StorageError
from pipeline.generate.dispatch import generate_shards
from pipeline.pools import extend_pools, version_in_force
from pipeline.publish.snapshot import snapshot_in_force, versions
from pipeline.publish.writer import SnapshotWriter
from pipeline.schemas import KNOWLEDGE
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import committed_shards, finished_shards
from tests.generation import FINGERPRINT, ToyWorker, make_plan, make_result, make_spec
from tests.integration.pipeline.faults.toy_nights import Nights
from tests.integration.pipeline.faults.toy_runs import assert_complete, write_plan
from tests.toy_night import FILLS

SIZE = "size=2m"
BYTES_PER_TEXT = 100_000


def with_long_texts(knowledge):
    """Texts that do not compress: four rows take about a quarter of a megabyte."""
    texts = [os.urandom(BYTES_PER_TEXT // 2).hex() for _ in range(knowledge.num_rows)]
    place = knowledge.schema.get_field_index("text")
    return knowledge.set_column(
        place, knowledge.schema.field("text"), pa.array(texts, KNOWLEDGE.field("text").type)
    )


class LongTextWorker(ToyWorker):
    def run_shard(self, shard, rows):
        return replace(
            super().run_shard(shard, rows), knowledge=with_long_texts(make_result(shard, rows).knowledge)
        )


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
    version = extend_pools(dataset, layout, None, "0", 64)
    assert version_in_force(dataset) == version and version.startswith("run-")
    Datastore.open(dataset.datastore / version, "0", 64).verify()


def test_a_disk_that_is_full_when_a_snapshot_is_written_leaves_no_version(disk):
    dataset = DatasetLayout(disk / "toy")
    rows = with_long_texts(make_result("item-00000", make_plan(1, 60)).knowledge)
    writer = SnapshotWriter(dataset, "night-1", rows_per_file=2)
    with pytest.raises(StorageError) as error:
        for start in range(0, rows.num_rows, 2):
            writer.add("item", rows.slice(start, 2))
    folder = dataset.snapshot("night-1")
    assert re.match(
        rf"{folder}/kind=item/drama-\d+\.parquet: no space left on device; what", str(error.value)
    )
    assert versions(dataset) == [] and not list(disk.rglob(".tmp-*"))


def assert_told(nights: Nights, errors: str, version: str, place: str) -> None:
    """One line says what is full; the version in force stays, and whatever watches the nights hears of it."""
    lines = errors.splitlines()
    assert "Traceback" not in errors and [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert re.match(rf"error: {place}\S*: no space left on device; what is finished is kept", lines[-1]), (
        errors
    )
    assert snapshot_in_force(nights.layout).version == version
    (failed,) = [record for record in nights.records() if record["status"] != "done"]
    assert failed["status"] == "failed" and "no space left on device" in failed["error"]
    assert 'knowledge_run_success{dataset="movielens"} 0.0' in nights.layout.metrics.read_text()
    assert "no space left on device" in nights.layout.run(failed["run_id"]).report("md").read_text()
    assert not list(nights.layout.root.rglob(".tmp-*"))


@pytest.mark.slow  # four nights
def test_a_night_whose_disk_fills_up_while_it_publishes_goes_on_once_there_is_space(
    cluster, node, smollm2, disk
):
    enlarge(disk)
    (disk / "models").mkdir()
    (disk / "models" / smollm2.name).symlink_to(smollm2)
    nights = Nights(disk, cluster.address)
    code, errors = nights.run()
    assert code == 0, errors
    first = snapshot_in_force(nights.layout).version

    changed = "knowledge.max_history=11"
    places = {"snapshot": nights.layout.knowledge, "datastore": nights.layout.datastore}
    for step, place in places.items():
        code, errors = nights.run(changed, **{FILLS: f"{step} {disk}"})
        assert code == 1, errors
        assert_told(nights, errors, first, str(place))
        (disk / "other").unlink()

    code, errors = nights.run(changed)
    assert code == 0, errors
    nights.check_complete()
    assert versions(nights.layout) == [first, snapshot_in_force(nights.layout).version]
    assert 'knowledge_run_success{dataset="movielens"} 1.0' in nights.layout.metrics.read_text()


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_temporary(disk):
    path = disk / "rows.parquet"
    old = pa.table({"number": [1]})
    write_parquet(old, path)
    fill(disk, free_bytes=4096)
    with pytest.raises(StorageError, match=rf"^{path}: no space left on device"):
        write_parquet(pa.table({"text": [os.urandom(BYTES_PER_TEXT)]}), path)
    assert sorted(file.name for file in disk.iterdir()) == ["other", "rows.parquet"]
    assert pq.read_table(path).equals(old)
