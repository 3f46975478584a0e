from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from drafters.datastore import Datastore
from drafters.datastore.format import entity_key
from pipeline.errors import BusyError, CorruptPartError, DataError, PublishError
from pipeline.pools import usable_version, version_in_force
from pipeline.publish.content import content_of_run
from pipeline.publish.release import check_gone, publish_run
from pipeline.publish.snapshot import (
    SUCCESS,
    read_snapshot,
    snapshot_in_force,
    snapshot_rows,
    versions,
)
from pipeline.publish.versions import prune, prune_if_possible, rollback
from pipeline.publish.writer import SnapshotWriter
from pipeline.publish_settings import PublishSettings
from pipeline.schemas import CHANGES, KNOWLEDGE
from pipeline.storage.files import remove_folder, write_parquet
from pipeline.storage.layout import DatasetLayout
from tests.publishing import data_tables, entities, finished_run, knowledge_row, settings_of


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2", "u3"), items=("i1", "i2"))
    return layout


def publish(layout, run, settings=None):
    content = content_of_run(layout, run, snapshot_in_force(layout))
    return publish_run(layout, run, settings or settings_of(), content, lambda name: nullcontext())


def first_night(layout):
    rows = entities("user", "u1", "u2", group="g0") + entities("item", "i1", "i2", group="drama")
    return publish(layout, finished_run(layout, "n1", rows, token=3))


def rows_in_force(layout) -> dict[tuple[str, str], dict]:
    rows = snapshot_rows(layout, snapshot_in_force(layout)).to_table().to_pylist()
    assert len({(row["kind"], row["entity_id"]) for row in rows}) == len(rows)
    return {(row["kind"], row["entity_id"]): row for row in rows}


def previous_text(layout, kind, group, entity):
    store = Datastore.open(layout.datastore / version_in_force(layout), "0" * 64, 100)
    text = store.previous(kind, entity_key(entity))
    return None if text is None else text.tolist()


def test_a_first_snapshot_is_in_force_with_pools_of_its_own(layout):
    snapshot = first_night(layout)
    assert snapshot_in_force(layout) == snapshot == read_snapshot(layout, "n1")
    assert snapshot.counts == {"user": 2, "item": 2}
    assert set(rows_in_force(layout)) == {("user", "u1"), ("user", "u2"), ("item", "i1"), ("item", "i2")}
    assert version_in_force(layout) == snapshot.datastore_version
    assert previous_text(layout, "user", "g0", "u1") == [3, 5, 6, 7, 3]
    assert usable_version(layout, "0" * 64, 100) == snapshot.datastore_version
    assert usable_version(layout, "1" * 64, 100) is None  # another tokenizer
    files = sorted(path.parent.name + "/" + path.name for path in layout.snapshot("n1").glob("kind=*/*"))
    assert files == ["kind=item/drama-00000.parquet", "kind=user/g0-00000.parquet"]


def test_changed_new_kept_and_gone_entities(layout):
    first_night(layout)
    data_tables(layout, users=("u1", "u2", "u3"), items=("i1",))  # i2 is gone
    rows = entities("user", "u1", prompt="other") + entities("user", "u3")
    publish(layout, finished_run(layout, "n2", rows, token=4))

    in_force = rows_in_force(layout)
    assert set(in_force) == {("user", "u1"), ("user", "u2"), ("user", "u3"), ("item", "i1")}
    assert {key: row["run_id"] for key, row in in_force.items()} == {
        ("user", "u1"): "n2", ("user", "u2"): "n1", ("user", "u3"): "n2", ("item", "i1"): "n1",
    }  # fmt: skip
    # The pools hold the texts in force and no other.
    assert previous_text(layout, "user", "g0", "u1") == [4, 5, 6, 7, 4]
    assert previous_text(layout, "user", "g0", "u2") == [3, 5, 6, 7, 3]
    assert previous_text(layout, "item", "drama", "i2") is None
    store = Datastore.open(layout.datastore / version_in_force(layout), "0" * 64, 100)
    assert sum(entry.num_documents for entry in store.header.segments if entry.group != "_domain") == 4


def test_an_entity_that_failed_keeps_its_previous_knowledge_or_is_absent(layout):
    first_night(layout)
    rows = entities("user", "u1", "u2", prompt="other") + entities("user", "u3")
    run = finished_run(layout, "n2", rows, token=4, failing=("u2", "u3"))
    settings = settings_of(max_failed_fraction=0.7)
    content = content_of_run(layout, run, snapshot_in_force(layout))
    publish(layout, run, settings)

    in_force = rows_in_force(layout)
    assert ("user", "u3") not in in_force
    assert in_force["user", "u2"]["run_id"] == "n1" and in_force["user", "u1"]["run_id"] == "n2"
    counts = content.counts()["user"]
    assert (counts["planned"], counts["new"], counts["changed"]) == (3, 1, 2)
    assert (counts["failed"], counts["kept_old"]) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "bounds", "reason"),
    [
        ({"text": " \n"}, {}, r"4 of 4 texts are empty, more than publish.max_empty_fraction=0.01"),
        ({"finish_reason": "repetition"}, {"max_looping_fraction": 0.2}, "4 of 4 texts are looping"),
        ({}, {"failed": True}, "2 of 2 planned users failed, more than max_failed_fraction=0.01 allows"),
    ],
)
def test_a_snapshot_that_is_not_valid_leaves_the_old_one_in_force(layout, changes, bounds, reason):
    first = first_night(layout)
    rows = entities("user", "u1", "u2", prompt="x") + entities("item", "i1", "i2", prompt="x")
    failing = ("u1", "u2") if bounds.pop("failed", False) else ()
    run = finished_run(layout, "n2", rows, failing=failing, **changes)
    with pytest.raises(PublishError, match=reason) as error:
        publish(layout, run, settings_of(publish=PublishSettings(**bounds)))
    assert error.value.exit_code == 1
    assert snapshot_in_force(layout) == first and versions(layout) == ["n1"]
    assert len(list(layout.snapshot("n2").glob("kind=*/*.parquet"))) == 2, "kept for inspection"
    assert "reason" in run.validation.read_text()
    assert version_in_force(layout) == first.datastore_version


def test_new_texts_are_judged_by_themselves_when_they_are_many(layout):
    bounds = PublishSettings(max_empty_fraction=0.5, min_judged_rows=1)
    first_night(layout)
    run = finished_run(layout, "n2", entities("user", "u1", prompt="x"), text="")
    with pytest.raises(PublishError, match="1 of 1 new texts are empty"):
        publish(layout, run, settings_of(publish=bounds))


def test_an_incomplete_run_is_not_published(layout):
    run = finished_run(layout, "n1", entities("user", "u1"))
    run.part_manifest("user-00000").unlink()
    with pytest.raises(PublishError, match="run n1 is not complete: 1 shard, such as user-00000"):
        content_of_run(layout, run, None)
    with pytest.raises(DataError, match="run_id=n7: there is no such run"):
        content_of_run(layout, layout.run("n7"), None)


def test_a_prompt_that_shows_later_events_fails_the_run(layout):
    rows = entities("user", "u1", "u2")
    rows[1]["latest_event"] = rows[1]["history_cutoff"]
    with pytest.raises(DataError, match="user u2: the prompt shows an event of 2023-12-01"):
        content_of_run(layout, finished_run(layout, "n1", rows), None)


def test_a_damaged_file_of_the_snapshot_in_force_is_not_carried_on(layout):
    first_night(layout)
    path = layout.snapshot("n1") / "kind=user/g0-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(CorruptPartError, match="g0-00000"):
        publish(layout, finished_run(layout, "n2", entities("user", "u3")))
    assert snapshot_in_force(layout).version == "n1"


def test_rollback_takes_the_older_snapshot_and_its_pools_together(layout):
    first = first_night(layout)
    second = publish(layout, finished_run(layout, "n2", entities("user", "u1", prompt="x"), token=4))
    assert rollback(layout, None) == first == snapshot_in_force(layout)
    assert version_in_force(layout) == first.datastore_version
    assert previous_text(layout, "user", "g0", "u1") == [3, 5, 6, 7, 3]
    with pytest.raises(DataError, match="n1 is the oldest version"):
        rollback(layout, None)
    assert rollback(layout, "n2") == second
    with pytest.raises(DataError, match="version=n9"):
        rollback(layout, "n9")


def test_rollback_refuses_a_damaged_version(layout):
    first_night(layout)
    publish(layout, finished_run(layout, "n2", entities("user", "u3")))
    next(layout.snapshot("n1").glob("kind=*/*.parquet")).unlink()
    with pytest.raises(CorruptPartError, match="kind="):
        rollback(layout, None)
    assert snapshot_in_force(layout).version == "n2"


def test_pruning_keeps_the_newest_and_always_the_one_in_force(layout):
    first_night(layout)
    for number in range(2, 6):
        publish(layout, finished_run(layout, f"n{number}", entities("user", "u3", prompt=f"{number}")))
    for number in range(1, 6):
        write_parquet(CHANGES.empty_table(), layout.run(f"n{number}").changes)
    rollback(layout, "n3")
    assert prune(layout, keep_versions=2) == ["n1"]  # n2 is what a rollback would return to
    assert versions(layout) == ["n2", "n3", "n4", "n5"]
    rollback(layout, "n5")
    assert prune(layout, keep_versions=2) == ["n2"]  # n4 was left, n3 is what a rollback would return to
    assert versions(layout) == ["n3", "n4", "n5"]
    stores = {read_snapshot(layout, version).datastore_version for version in versions(layout)}
    assert {path.name for path in layout.datastore.iterdir()} == stores
    assert {path.name for path in layout.knowledge.iterdir() if path.is_dir()} == {"n3", "n4", "n5"}
    for name, stays in (("n1", False), ("n2", False), ("n3", True), ("n4", True), ("n5", True)):
        run = layout.run(name)
        assert run.parts.exists() == run.plan.exists() == run.changes.exists() == stays
        assert run.manifest.exists(), "a run's records stay"


@pytest.mark.parametrize("num_removals", [0, 1, 2])
def test_pruning_that_was_killed_leaves_no_parts_behind(layout, monkeypatch, num_removals):
    removed = []

    def killed_later(folder):
        if len(removed) == num_removals:
            raise KeyboardInterrupt
        removed.append(folder)
        remove_folder(folder)

    first_night(layout)
    for version in ("n2", "n3"):
        next_night(layout, version)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pipeline.publish.versions.remove_folder", killed_later)
        prune(layout, keep_versions=2)
    prune(layout, keep_versions=2)
    run = layout.run("n1")
    assert not (run.parts.exists() or run.plan.exists() or layout.snapshot("n1").exists())
    assert versions(layout) == ["n2", "n3"]


def test_publishing_again_is_harmless_but_never_undoes_a_later_version(layout):
    snapshot = first_night(layout)
    run = layout.run("n1")
    content = content_of_run(layout, run, None)
    again = publish_run(layout, run, settings_of(), content, lambda name: nullcontext())
    assert again == snapshot
    publish(layout, finished_run(layout, "n2", entities("user", "u3")))
    publish(layout, finished_run(layout, "n3", entities("user", "u3", prompt="x")))
    with pytest.raises(PublishError, match="rollback version=n1"):
        publish_run(layout, run, settings_of(), content, lambda name: nullcontext())


def test_pools_of_later_events_do_not_draft_for_an_earlier_cutoff(layout):
    first_night(layout)  # its users' prompts were cut off in December 2023
    assert usable_version(layout, "0" * 64, 100, datetime(2023, 12, 1, tzinfo=UTC)) is not None
    assert usable_version(layout, "0" * 64, 100, datetime(2023, 11, 30, tzinfo=UTC)) is None


def test_large_groups_are_written_in_several_files(layout):
    writer = SnapshotWriter(layout, "n1", rows_per_file=2, max_buffered_rows=3)
    for number, group in enumerate("abaab"):
        (row,) = entities("user", f"u{number}", group=group)
        writer.add("user", pa.Table.from_pylist([knowledge_row(row, "n1", 3)], KNOWLEDGE))
    files = writer.finish()
    assert [(file.group, file.num_rows) for file in files] == [("a", 2), ("a", 1), ("b", 2)]
    for file in files:
        assert pq.read_metadata(layout.snapshot("n1") / file.path).num_rows == file.num_rows


def test_success_is_written_last(layout):
    first_night(layout)
    assert layout.snapshot("n1").joinpath(SUCCESS).exists()
    layout.snapshot("n1").joinpath(SUCCESS).unlink()
    assert versions(layout) == []
    with pytest.raises(DataError, match="version=n1: no complete snapshot"):
        snapshot_in_force(layout)


def next_night(layout, version):
    return publish(layout, finished_run(layout, version, entities("user", "u3", prompt=version)))


def test_no_rollback_returns_to_a_version_that_one_left(layout):
    first_night(layout)
    for version in ("n2", "n3"):
        next_night(layout, version)
    assert rollback(layout, None).version == "n2"
    next_night(layout, "n4")
    prune(layout, keep_versions=2)
    assert rollback(layout, None).version == "n2"
    assert rollback(layout, "n3").version == "n3"  # asked for by name
    next_night(layout, "n5")
    assert rollback(layout, None).version == "n3"


def test_a_run_that_a_rollback_left_is_not_published_again_in_passing(layout):
    first_night(layout)
    run = layout.run(next_night(layout, "n2").run_id)
    base = rollback(layout, None)
    with pytest.raises(PublishError, match="rollback version=n2"):
        publish_run(layout, run, settings_of(), content_of_run(layout, run, base), lambda name: nullcontext())
    assert snapshot_in_force(layout).version == "n1"


def test_an_unreadable_version_is_passed_over_unless_it_is_in_force(layout, caplog):
    first_night(layout)
    for version in ("n2", "n3", "n4"):
        next_night(layout, version)
    (layout.snapshot("n2") / SUCCESS).write_text("{")
    assert versions(layout) == ["n1", "n3", "n4"] and "version n2 is passed over" in caplog.text
    assert prune(layout, keep_versions=2) == ["n1"]
    assert layout.snapshot("n2").exists(), "a person may want to look at it"
    assert rollback(layout, None).version == "n3"
    (layout.snapshot("n3") / SUCCESS).write_text("{")
    with pytest.raises(CorruptPartError, match="n3/_SUCCESS"):
        snapshot_in_force(layout)


def test_what_hinders_pruning_is_a_warning(layout, monkeypatch, caplog):
    def refuses(folder):
        raise PermissionError(f"{folder}: not yours")

    first_night(layout)
    for version in ("n2", "n3"):
        next_night(layout, version)
    monkeypatch.setattr("pipeline.publish.versions.remove_folder", refuses)
    assert prune_if_possible(layout, 2) == []
    assert "old versions were not removed" in caplog.text and "not yours" in caplog.text


def test_a_lost_lock_puts_nothing_in_force(layout):
    def lost():
        raise BusyError("this process lost the lock")

    first_night(layout)
    run = finished_run(layout, "n2", entities("user", "u3"))
    content = content_of_run(layout, run, snapshot_in_force(layout))
    with pytest.raises(BusyError):
        publish_run(layout, run, settings_of(), content, lambda name: nullcontext(), lost)
    assert versions(layout) == ["n1"] and snapshot_in_force(layout).version == "n1"


@pytest.mark.parametrize(("cutoff", "reason"), [(None, "3 are gone"), (1, "3 saw events after")])
def test_a_snapshot_does_not_shrink_unasked(layout, cutoff, reason):
    users = tuple(f"u{number}" for number in range(10))
    data_tables(layout, users=users, items=("i1",))
    publish(layout, finished_run(layout, "n1", entities("user", *users) + entities("item", "i1")))
    data_tables(layout, users=users[: 7 if cutoff is None else 10], items=("i1",))
    run = finished_run(layout, "n2", entities("user", "u0", prompt="x"))
    content = content_of_run(layout, run, snapshot_in_force(layout))
    if cutoff is not None:
        withheld = pc.is_in(content.changes["entity_id"], pa.array(["u7", "u8", "u9"]))
        changed = pc.if_else(withheld, "withheld", content.changes["change"])
        changes = content.changes.set_column(2, content.changes.schema.field(2), changed)
        content = replace(content, changes=changes)
    with pytest.raises(
        PublishError, match=rf"3 of 10 users in force .*{reason}.*max_gone_fraction=1 goes on"
    ):
        publish_run(layout, run, settings_of(), content, lambda name: nullcontext())
    assert snapshot_in_force(layout).version == "n1"
    check_gone(content.base, content.changes, 1.0)


def test_pools_that_were_damaged_before_the_publication_are_built_again(layout):
    run = finished_run(layout, "n1", entities("user", "u1"))
    content = content_of_run(layout, run, None)

    @contextmanager
    def damaging(name):
        yield
        if name == "datastore":
            (tokens,) = layout.datastore.glob("*/user/g0/*.tokens")
            tokens.chmod(0o644)
            tokens.write_bytes(b"")

    with pytest.raises(CorruptPartError, match="tokens"):
        publish_run(layout, run, settings_of(), content, damaging)
    assert publish(layout, run).version == "n1"
    assert previous_text(layout, "user", "g0", "u1") == [3, 5, 6, 7, 3]


def test_pools_that_were_damaged_before_they_were_put_in_force_are_built_again(layout):
    pools = first_night(layout).datastore_version
    layout.current_snapshot.unlink()  # as if the process was killed right after `_SUCCESS`
    (layout.datastore / pools / "user" / "g0" / "000000.tokens").unlink()
    assert publish(layout, layout.run("n1")).datastore_version == pools == version_in_force(layout)
    assert previous_text(layout, "user", "g0", "u1") == [3, 5, 6, 7, 3]


def test_kept_ids_are_looked_up_once_for_each_kind(layout, monkeypatch):
    users = tuple(f"u{number}" for number in range(6))
    data_tables(layout, users=users, items=())
    rows = [row for n, user in enumerate(users) for row in entities("user", user, group=f"g{n}")]
    publish(layout, finished_run(layout, "n1", rows))
    lookups = []

    def is_in(values, value_set):
        lookups.append(len(values))
        return pc.is_in(values, value_set=value_set)

    monkeypatch.setattr("pipeline.publish.writer.pc", SimpleNamespace(**{**vars(pc), "is_in": is_in}))
    publish(layout, finished_run(layout, "n2", entities("user", "u5", prompt="x", group="g5")))
    assert lookups == [6] and {row["run_id"] for row in rows_in_force(layout).values()} == {"n1", "n2"}
