"""Processes that lost the lock of a dataset, or stopped half-way, leave what is published as it is."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from pipeline.errors import BusyError, PublishError
from pipeline.pools import verify_pools
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import LEFT, snapshot_in_force, verify_files, versions, was_left
from pipeline.publish.versions import prune, prune_if_possible, rollback
from pipeline.storage.layout import DatasetLayout, RunLayout
from tests.publishing import data_tables, entities, finished_run, settings_of


class Stalled:
    """The steps of a process that stalls as it enters `step`, until another one has published its run."""

    def __init__(self, layout: DatasetLayout, run: RunLayout, step: str) -> None:
        self.layout = layout
        self.run = run
        self.step = step
        self.is_lost = False

    @contextmanager
    def enter(self, step: str) -> Iterator[None]:
        if step == self.step:
            self.is_lost = True
            publish(self.layout, self.run)
        yield

    def require_lock(self) -> None:
        if self.is_lost:
            raise BusyError("this process lost the lock")


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2"), items=())
    publish(layout, finished_run(layout, "n1", entities("user", "u1")))
    return layout


def publish(layout: DatasetLayout, run: RunLayout) -> None:
    content = content_of_run(layout, run, snapshot_in_force(layout))
    publish_run(layout, run, settings_of(), content, lambda name: nullcontext())


def modified(layout: DatasetLayout) -> dict[str, int]:
    """When each file of the dataset was written."""
    return {str(path): path.stat().st_mtime_ns for path in layout.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", ["snapshot", "validate", "datastore", "publish"])
def test_what_another_process_published_meanwhile_stays_in_force_and_whole(layout, step):
    run = finished_run(layout, "n2", entities("user", "u2"))
    stalled = Stalled(layout, run, step)
    content = content_of_run(layout, run, snapshot_in_force(layout))
    with pytest.raises(BusyError):
        publish_run(layout, run, settings_of(), content, stalled.enter, stalled.require_lock)
    snapshot = snapshot_in_force(layout)
    assert snapshot.version == "n2" and versions(layout) == ["n1", "n2"]
    verify_files(layout, "n2", snapshot.files)
    verify_pools(layout, snapshot.datastore_version)


@pytest.mark.parametrize("step", ["snapshot", "datastore", "publish"])
def test_it_writes_nothing_at_all(layout, step):
    run = finished_run(layout, "n2", entities("user", "u2"))
    stalled = Stalled(layout, run, step)
    content = content_of_run(layout, run, snapshot_in_force(layout))
    before: dict[str, int] = {}

    @contextmanager
    def enter(name: str) -> Iterator[None]:
        with stalled.enter(name):
            if stalled.is_lost:
                before.update(modified(layout))
            yield

    with pytest.raises(BusyError):
        publish_run(layout, run, settings_of(), content, enter, stalled.require_lock)
    assert modified(layout) == before


def test_a_version_that_became_complete_is_not_removed_although_the_lock_seems_held(layout):
    run = finished_run(layout, "n2", entities("user", "u2"))
    stalled = Stalled(layout, run, "snapshot")
    content = content_of_run(layout, run, snapshot_in_force(layout))
    with pytest.raises(PublishError, match="version n2 was completed by another process"):
        publish_run(layout, run, settings_of(), content, stalled.enter)
    verify_files(layout, "n2", snapshot_in_force(layout).files)


@pytest.mark.parametrize("interrupted", ["put_in_force", "clear_left", "write_text"])
def test_a_rollback_that_is_interrupted_hides_no_good_version_from_the_next(layout, monkeypatch, interrupted):
    def interrupts(*_) -> None:
        raise KeyboardInterrupt

    for version in ("n2", "n3"):
        publish(layout, finished_run(layout, version, entities("user", "u2", prompt=version)))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"pipeline.publish.versions.{interrupted}", interrupts)
        rollback(layout, None)
    was = snapshot_in_force(layout).version
    assert was == ("n3" if interrupted == "put_in_force" else "n2")
    assert not was_left(layout, was)
    publish(layout, finished_run(layout, "n4", entities("user", "u2", prompt="n4")))
    assert rollback(layout, None).version == was


def test_the_mark_of_a_version_that_is_in_force_goes_when_the_next_is_published(layout):
    """Such as one to which a rollback was interrupted before it removed the mark."""
    publish(layout, finished_run(layout, "n2", entities("user", "u2")))
    (layout.snapshot("n2") / LEFT).write_text("")
    publish(layout, finished_run(layout, "n3", entities("user", "u2", prompt="n3")))
    assert rollback(layout, None).version == "n2"


def test_a_rollback_that_lost_the_lock_marks_nothing(layout):
    def lost() -> None:
        raise BusyError("this process lost the lock")

    publish(layout, finished_run(layout, "n2", entities("user", "u2")))
    before = modified(layout)
    with pytest.raises(BusyError):
        rollback(layout, None, lost)
    assert modified(layout) == before


def test_it_prunes_nothing(layout, caplog):
    def lost() -> None:
        raise BusyError("this process lost the lock")

    for version in ("n2", "n3"):
        publish(layout, finished_run(layout, version, entities("user", "u2", prompt=version)))
    before = modified(layout)
    with pytest.raises(BusyError):
        prune(layout, 2, lost)
    assert prune_if_possible(layout, 2, lost) == [] and "lost the lock" in caplog.text
    assert modified(layout) == before
