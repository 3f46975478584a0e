"""Publishing killed (SIGKILL) around the moments at which it writes: all or nothing, then complete."""

import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from drafters.datastore import Datastore
from pipeline.pools import version_in_force
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import snapshot_in_force, snapshot_rows, verify_files, versions
from pipeline.storage.layout import DatasetLayout
from tests.publishing import data_tables, entities, finished_run, settings_of

CHECKOUT = Path(__file__).resolve().parents[4]

NUM_MOMENTS = 24

# Publishes run n2, and kills itself before or after the given flush or renaming of a file or folder.
VICTIM = """
import os, pathlib, signal, sys
from contextlib import nullcontext
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.publish.versions import prune
from pipeline.storage.layout import DatasetLayout
from tests.publishing import settings_of

layout, fatal, after = DatasetLayout(pathlib.Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "after"
count = 0

def at_this_moment(function):
    def wrapped(*args):
        global count
        count += 1
        if count == fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args)
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

pathlib.Path.replace = at_this_moment(pathlib.Path.replace)
os.fsync = at_this_moment(os.fsync)
run = layout.run("n2")
content = content_of_run(layout, run, snapshot_in_force(layout))
publish_run(layout, run, settings_of(), content, lambda name: nullcontext())
prune(layout, 2)
print(count)
"""


def old_and_new(tmp_path) -> DatasetLayout:
    """Version n1 in force, run n2 finished: u1 changed, u3 is new, i2 gone."""
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2", "u3"), items=("i1", "i2"))
    first = entities("user", "u1", "u2", group="g0") + entities("item", "i1", "i2", group="drama")
    run = finished_run(layout, "n1", first)
    content = content_of_run(layout, run, None)
    publish_run(layout, run, settings_of(), content, lambda name: nullcontext())
    data_tables(layout, users=("u1", "u2", "u3"), items=("i1",))
    finished_run(layout, "n2", entities("user", "u1", "u3", prompt="x"), token=4)
    return layout


def publish(layout: DatasetLayout, fatal: int, when: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", VICTIM, str(layout.root), str(fatal), when]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)


def run_ids_in_force(layout: DatasetLayout) -> dict[str, str]:
    """Entity -> run that wrote it, of a version whose files and pools are whole."""
    snapshot = snapshot_in_force(layout)
    verify_files(layout, snapshot.version, snapshot.files)
    assert version_in_force(layout) == snapshot.datastore_version
    Datastore.open(layout.datastore / snapshot.datastore_version, "0" * 64, 100).verify()
    rows = snapshot_rows(layout, snapshot).to_table(columns=["entity_id", "run_id"]).to_pylist()
    assert len({row["entity_id"] for row in rows}) == len(rows)
    return {row["entity_id"]: row["run_id"] for row in rows}


BEFORE = {"u1": "n1", "u2": "n1", "i1": "n1", "i2": "n1"}
AFTER = {"u1": "n2", "u2": "n1", "u3": "n2", "i1": "n1"}


@pytest.mark.slow  # a process for each moment
def test_killed_at_every_write_the_old_or_the_new_version_is_in_force_and_a_rerun_completes(tmp_path):
    whole = publish(old_and_new(tmp_path / "whole"), 0, "after")
    num_writes = int(whole.stdout)
    moments = [(write, when) for write in range(1, num_writes + 1) for when in ("before", "after")]
    assert len(moments) >= NUM_MOMENTS
    last = moments[-6:]  # around `_SUCCESS` and `CURRENT`
    for write, when in random.Random(0).sample(moments[:-6], NUM_MOMENTS - len(last)) + last:
        layout = old_and_new(tmp_path / f"{write}-{when}")
        killed = publish(layout, write, when)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert run_ids_in_force(layout) in (BEFORE, AFTER)

        again = publish(layout, 0, "after")
        assert again.returncode == 0, again.stderr
        assert run_ids_in_force(layout) == AFTER
        assert versions(layout) == ["n1", "n2"]
