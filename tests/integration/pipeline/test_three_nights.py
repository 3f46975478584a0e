"""Three nights with real Ray and vLLM: the first, one with changed users, one with nothing to do.

Once with their data in a folder, once in an object store.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.publish.snapshot import snapshot_in_force, snapshot_rows, verify_files, versions
from pipeline.storage.layout import DatasetLayout
from tests.changed_movielens import changed_copy, some_users

CHECKOUT = Path(__file__).resolve().parents[3]
LIMIT = 6
PATIENCE_SEC = 300
SMALL = [
    "plan.shard_size=3",
    "knowledge.user.max_tokens=48",
    "knowledge.item.max_tokens=48",
    "engine.cpu_kv_cache_gib=1",
]


@pytest.fixture(params=["folder", "bucket"])
def data(request, tmp_path, smollm2) -> str:
    """The data directory, with the model where nights look for a prepared one."""
    place = str(tmp_path)
    models = tmp_path / "models"
    if request.param == "bucket":
        place = f"{request.getfixturevalue('bucket')}/nights"
        models = Path(os.environ["LASER_CACHE_DIR"]) / "models"
    models.mkdir()
    (models / smollm2.name).symlink_to(smollm2)
    return place


def start(data: str, job: str, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", f"jobs.{job}", *words, "dataset=movielens", f"paths.data={data}"]
    return subprocess.Popen(
        command,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(data: str, job: str, *words: str) -> tuple[int, str, str]:
    process = start(data, job, *words)
    out, err = process.communicate(timeout=PATIENCE_SEC)
    return process.returncode, out, err


def night(data: str, *words: str) -> dict:
    """`night.json` of a night that ended well."""
    code, out, err = run(data, "nightly", f"limit={LIMIT}", *SMALL, *words)
    assert code == 0, out + err
    records = [json.loads(path.read_text()) for path in layout(data).runs.glob("*/night.json")]
    return max(records, key=lambda record: (record["started_at"], record["run_id"]))


def layout(data: str) -> DatasetLayout:
    return DatasetLayout.of(data, "movielens")


def num_drafted(data: str, told: dict, source: str) -> int:
    """Draft tokens of `source` in the last session of a night."""
    manifest = json.loads(layout(data).run(told["run_id"]).manifest.read_text())
    return manifest["summary"]["sources"].get(source, {"num_draft_tokens": 0})["num_draft_tokens"]


def in_force(data: str) -> dict[tuple[str, str], dict]:
    """The rows in force by kind and entity."""
    snapshot = snapshot_in_force(layout(data))
    verify_files(layout(data), snapshot.version, snapshot.files)
    rows = snapshot_rows(layout(data), snapshot).to_table().to_pylist()
    assert len({(row["kind"], row["entity_id"]) for row in rows}) == len(rows)
    return {(row["kind"], row["entity_id"]): row for row in rows}


def check_lock(data: str, running: subprocess.Popen) -> None:
    lock = layout(data).lock  # a file beside it names the owner, an object's name ends in a number
    wait_for(lambda: list(lock.parent.glob(f"{lock.name}.owner*")), "the lock")
    code, _, err = run(data, "nightly", f"limit={LIMIT}", *SMALL)
    assert code == 2 and running.poll() is None
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and f"process {running.pid}, since" in lines[0]


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_SEC
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.2)


@pytest.mark.timeout(1500)
@pytest.mark.slow  # two engine starts, and one that is killed
def test_three_nights(data, tmp_path):
    # The first night is killed in the middle; meanwhile a second one is turned away.
    first = start(data, "nightly", f"limit={LIMIT}", *SMALL, "history_cutoff=2026-11-20T00:00Z")
    check_lock(data, first)
    wait_for(lambda: list(layout(data).runs.glob("*/parts/*.json")), "a part")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert snapshot_in_force(layout(data)) is None

    one = night(data, "history_cutoff=2026-11-20T00:00Z")
    assert one["run_id"] == one["version"] == "2026-11-20" and one["previous_version"] is None
    assert one["counts"]["user"]["new"] == one["counts"]["item"]["new"] == LIMIT
    before = in_force(data)
    assert len(before) == 2 * LIMIT and {row["run_id"] for row in before.values()} == {"2026-11-20"}

    # The second: one user of the sample has rated once more.
    (user,) = some_users(0.05, of=LIMIT)
    raw = tmp_path / "raw"
    changed_copy(raw, [user])
    two = night(data, f"dataset.raw={raw}", "history_cutoff=2026-11-21T00:00Z")
    assert two["version"] == "2026-11-21" and two["previous_version"] == "2026-11-20"
    assert (
        two["counts"]["user"] | {"changed": 1, "carried": LIMIT - 1, "planned": 1, "failed": 0}
        == two["counts"]["user"]
    )
    assert two["counts"]["item"]["carried"] == LIMIT
    after = in_force(data)
    assert {key for key in after if after[key] != before[key]} == {("user", user)} and set(after) == set(
        before
    )
    assert after["user", user]["datastore_version"] == one["datastore_version"]
    changed = two["by_change"]["changed"]
    assert changed["num_rows"] == 1 and changed["num_decode_steps"] < changed["num_output_tokens"]
    # Of what was drafted for that user, some came from the user's own text of the night before.
    assert num_drafted(data, one, "previous") == 0 < num_drafted(data, two, "previous")

    # The third: nothing changed, no engine is started and no version made.
    three = night(data, f"dataset.raw={raw}", "history_cutoff=2026-11-21T00:00Z")
    assert three["run_id"] == "2026-11-21-2" and three["version"] == "2026-11-21"
    assert {step["name"]: step["status"] for step in three["steps"]}["generate"] == "skipped"
    assert not layout(data).run("2026-11-21-2").parts.exists()
    assert versions(layout(data)) == ["2026-11-20", "2026-11-21"]

    code, out, _ = run(data, "publish", "rollback")
    assert code == 0 and "in force: 2026-11-20 (6 items, 6 users)" in out and in_force(data) == before
    code, out, _ = run(data, "publish", "list")
    assert code == 0 and "2026-11-21" in out
