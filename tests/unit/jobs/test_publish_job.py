import pytest
import s3fs

from jobs.publish import main
from pipeline.publish.snapshot import SUCCESS, snapshot_in_force, versions
from pipeline.storage.files import remove_folder, write_json
from pipeline.storage.layout import DatasetLayout
from tests.publishing import data_tables, entities, finished_run


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    layout = DatasetLayout.of(tmp_path, "movielens")
    data_tables(layout, users=("u1", "u2"), items=("i1",))
    finished_run(layout, "n1", entities("user", "u1") + entities("item", "i1"))
    finished_run(layout, "n2", entities("user", "u2"))
    return layout


def publish(layout: DatasetLayout, *words: str) -> int:
    return main([*words, "dataset=movielens", f"paths.data={layout.root.parent}"])


def test_publish_list_and_rollback(layout, capsys):
    assert publish(layout, "run_id=n1") == publish(layout, "run_id=n2") == 0
    assert "in force: n2 (1 item, 2 users), pools n2-" in capsys.readouterr().out
    assert publish(layout, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "in force" in line] == ["n2"]
    assert publish(layout, "rollback") == 0
    assert snapshot_in_force(layout).version == "n1"
    assert publish(layout, "rollback", "version=n2") == 0
    assert snapshot_in_force(layout).version == "n2"
    assert publish(layout, "rollback", "version=n7") == 2
    assert "error: version=n7: no complete snapshot" in capsys.readouterr().err


def test_a_publication_given_again_is_done_and_says_what_is_current(layout, capsys):
    assert publish(layout, "run_id=n1") == 0
    remove_folder(layout.run("n1").root)  # safe once it is published
    capsys.readouterr()
    assert publish(layout, "run_id=n1") == publish(layout, "validate", "run_id=n1") == 0
    shown = capsys.readouterr().out
    assert "in force: n1 (1 item, 1 user)" in shown
    assert "n1 was found valid before: {'item': 1, 'user': 1}" in shown

    assert publish(layout, "run_id=n2") == publish(layout, "run_id=n1") == 0
    shown = capsys.readouterr().out
    assert "n1 was published before; nothing is left to do" in shown and "rollback version=n1" in shown
    assert shown.splitlines()[-1].startswith("in force: n2") and snapshot_in_force(layout).version == "n2"

    assert publish(layout, "rollback") == publish(layout, "rollback", "version=n1") == 0
    capsys.readouterr()
    assert publish(layout, "run_id=n2") == 0
    assert "in force: n1" in capsys.readouterr().out and snapshot_in_force(layout).version == "n1"


def test_a_complete_version_that_never_was_current_is_no_success(layout, capsys):
    assert publish(layout, "run_id=n1") == 0
    current = layout.current_snapshot.read_text()
    assert publish(layout, "run_id=n2") == 0
    layout.current_snapshot.write_text(current)  # as if the process was killed before it replaced CURRENT
    finished_run(layout, "n3", entities("user", "u2", prompt="x"))
    assert publish(layout, "run_id=n3") == 0
    assert publish(layout, "run_id=n2") == 1
    assert "version n2 was published before, and n3 is in force" in capsys.readouterr().err


def test_a_version_in_force_that_is_unreadable_is_listed_and_rolled_back(layout, capsys, caplog):
    assert publish(layout, "run_id=n1") == publish(layout, "run_id=n2") == 0
    (layout.snapshot("n2") / SUCCESS).write_text("{}")
    capsys.readouterr()
    assert publish(layout, "list") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line[:1] == ["n2"]] == [["n2", "unreadable", "in", "force"]]
    assert len([line for line in lines if line[:1] == ["n1"]]) == 1
    assert "n2/_SUCCESS: unreadable: version: Field required" in caplog.text
    assert publish(layout, "rollback") == 0
    assert snapshot_in_force(layout).version == "n1"
    assert publish(layout, "rollback") == 2
    assert "n1 is the oldest version to return to" in capsys.readouterr().err


def test_validate_puts_nothing_in_force(layout, capsys):
    assert publish(layout, "validate", "run_id=n1") == 0
    assert "n1 is valid" in capsys.readouterr().out
    assert snapshot_in_force(layout) is None and versions(layout) == []
    assert publish(layout, "run_id=n1") == 0


def test_what_cannot_be_published_is_said_in_one_line(layout, capsys):
    assert publish(layout) == 2
    assert capsys.readouterr().err == "error: run_id: missing; name the run to publish\n"
    layout.run("n1").part("user-00000").write_bytes(b"PAR1")
    assert publish(layout, "run_id=n1") == 1
    assert "error: run n1 is not complete: 1 shard, such as user-00000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        ({"status": "stopped", "run_id": "n5"}, "the same python -m jobs.nightly goes on with it"),
        ({"status": "stopped", "previous_version": None}, "the same python -m jobs.nightly goes on with it"),
        (
            {"status": "done", "previous_version": "n1", "steps": [{"name": "report", "status": "done"}]},
            "nothing had changed",
        ),
    ],
)
def test_a_night_without_a_plan_is_named(layout, capsys, record, hint):
    write_json(record, layout.run("n5").night)
    assert publish(layout, "run_id=n5") == 1
    assert capsys.readouterr().err == f"error: run n5 has no plan yet: {hint}\n"


def test_bounds_are_settings(layout, capsys):
    finished_run(layout, "n3", entities("user", "u1", "u2"), finish_reason="repetition")
    assert publish(layout, "run_id=n3", "publish.max_looping_fraction=0.5") == 1
    assert "2 of 2 texts are looping, more than publish.max_looping_fraction=0.5" in capsys.readouterr().err
    assert publish(layout, "run_id=n3", "publish.max_looping_fraction=2") == 2
    assert "publish.max_looping_fraction" in capsys.readouterr().err


def test_a_store_that_does_not_answer_is_told_in_one_line(monkeypatch, capsys):
    values = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}
    for name, value in (values | {"MAX_ATTEMPTS": "1", "DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["list", "dataset=movielens", "paths.data=s3://knowledge/data"]) == 1
    s3fs.S3FileSystem.clear_instance_cache()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: s3://knowledge/data: the object store does not answer, or refuses: Could not"
    )
