"""The order of a night's steps and what it writes down; the texts are made by hand, without an engine."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pipeline.errors import ConfigError, CorruptPartError, PublishError, QualityError
from pipeline.pools import verify_pools
from pipeline.publish.snapshot import snapshot_in_force, versions
from pipeline.publish_settings import NightlySettings, PublishSettings
from pipeline.quality_settings import QualitySettings
from pipeline.storage.files import write_json
from pipeline.storage.lock import owned
from tests.publishing import entities


def test_first_changed_and_unchanged_nights(world):
    one = world.night(run_id="one")
    assert [step["name"] for step in one["steps"]] == [
        "tables", "groups", "prompts", "plan", "generate", "snapshot", "validate", "datastore", "publish",
        "report",
    ]  # fmt: skip
    assert (one["status"], one["version"], one["previous_version"]) == ("done", "one", None)
    assert one["counts"]["user"]["new"] == one["counts"]["user"]["planned"] == 2

    world.rows = entities("user", "u1", prompt="x") + entities("user", "u2", "u3") + entities("item", "i1")
    two = world.night(run_id="two")
    assert (
        two["counts"]["user"] | {"new": 1, "changed": 1, "carried": 1, "planned": 2} == two["counts"]["user"]
    )
    assert two["counts"]["item"] | {"carried": 1, "gone": 1, "planned": 0} == two["counts"]["item"]
    assert two["by_change"]["changed"] == {
        "num_rows": 1, "num_output_tokens": 5, "num_decode_steps": 2, "num_draft_tokens": 4,
        "num_accepted_tokens": 3, "num_relaxed_tokens": 1,
    }  # fmt: skip
    assert two["by_change"]["carried"]["num_rows"] == 1, "u2; i1 is of a kind of which nothing was written"
    assert one["by_change"]["carried"]["num_rows"] == 0
    assert two["num_carried_tokens"] == 10 and two["decode_sec"] == 2.0
    assert two["saved_decode_sec"] == pytest.approx(10 / 50)  # 50 tokens/s

    three = world.night(run_id="three")
    assert (
        world.num_generations == 2 and three["version"] == "two" and versions(world.layout) == ["one", "two"]
    )
    statuses = {step["name"]: step["status"] for step in three["steps"]}
    assert statuses["generate"] == statuses["publish"] == "skipped" and statuses["report"] == "done"
    assert three["saved_decode_sec"] == pytest.approx(20 / 50)
    assert world.reports == ["one", "two", "three"]


def test_a_night_that_is_done_and_is_started_again_is_left_as_it_is(world):
    world.night(run_id="one")
    world.rows = world.rows + entities("user", "u3")  # what the data says by now is the next night's
    before = {path: path.stat().st_mtime_ns for path in world.layout.root.rglob("*")}
    with owned(world.layout.lock, "two"):
        assert world.night(run_id="one", retry_failed=True)["version"] == "one"
    assert world.num_generations == 1 and world.reports == ["one"]
    after = {path: path.stat().st_mtime_ns for path in before if "lock" not in path.name}
    assert after == {path: time for path, time in before.items() if path in after}
    with pytest.raises(ConfigError, match="run_id=one: that night is done, with other settings"):
        world.night(run_id="one", limit=3)
    with pytest.raises(ConfigError, match="run_id=one: that night is done, with other settings"):
        world.night(run_id="one", history_cutoff=datetime(2026, 11, 22, tzinfo=UTC))


def test_only_gone_entities_make_a_version_too(world):
    world.night(run_id="one")
    world.rows = world.rows[:3]
    two = world.night(run_id="two")
    assert two["version"] == "two" and snapshot_in_force(world.layout).counts == {"user": 2, "item": 1}


def test_a_torn_export_is_told_before_anything_is_generated(world):
    everyone = entities("user", *(f"u{number}" for number in range(30)), prompt="y")
    world.rows = everyone
    world.night(run_id="one")
    world.rows = everyone[:1] + entities("user", "new")
    with pytest.raises(PublishError, match="29 of 30 users in force would leave the snapshot"):
        world.night(run_id="two")
    assert world.record("two")["error"].startswith("plan: 29 of 30") and world.num_generations == 1
    two = world.night(run_id="two", publish=PublishSettings(max_gone_fraction=1.0))
    assert two["status"] == "done" and snapshot_in_force(world.layout).counts["user"] == 2


def test_a_damaged_file_of_the_version_in_force_is_told_before_anything_is_generated(world):
    world.night(run_id="one")
    path = world.layout.snapshot("one") / "kind=user/g0-00000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"x" + content[41:])
    world.rows = world.rows + entities("user", "u3")
    with pytest.raises(CorruptPartError, match=r"g0-00000\.parquet: its content is not what _SUCCESS says"):
        world.night(run_id="two")
    assert world.num_generations == 1


def damage(path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])


@pytest.mark.parametrize("is_changed", [True, False])
@pytest.mark.parametrize("damaged", ["user/g0/000000.tokens", "header.json", "calibration.json"])
def test_damaged_pools_in_force_are_built_again(world, caplog, damaged, is_changed):
    write_json({"weights": [0.5]}, world.layout.run("one").calibration)
    pools = world.night(run_id="one")["datastore_version"]
    (path,) = (world.layout.datastore / pools).glob(damaged)
    damage(path)
    world.rows = world.rows + (entities("user", "u3") if is_changed else [])
    two = world.night(run_id="two")
    assert two["status"] == "done" and (two["version"] == "two") == is_changed
    assert snapshot_in_force(world.layout).datastore_version == two["datastore_version"]
    assert "the pools of version one are built again" in caplog.text
    verify_pools(world.layout, pools)
    assert is_changed or two["datastore_version"] == pools


def test_pools_whose_calibration_is_lost_get_another_name(world):
    write_json({"weights": [0.5]}, world.layout.run("one").calibration)
    pools = world.night(run_id="one")["datastore_version"]
    world.layout.run("one").calibration.unlink()
    (world.layout.datastore / pools / "calibration.json").unlink()
    two = world.night(run_id="two")
    assert (two["version"], two["status"]) == ("one", "done") and two["datastore_version"] != pools
    assert snapshot_in_force(world.layout).datastore_version == two["datastore_version"]
    verify_pools(world.layout, two["datastore_version"])


def test_damaged_pools_of_a_run_whose_manifest_is_lost_are_told(world):
    pools = world.night(run_id="one")["datastore_version"]
    world.layout.run("one").manifest.unlink()
    damage(world.layout.datastore / pools / "header.json")
    with pytest.raises(
        CorruptPartError, match=r"jobs\.publish rollback returns to the version before"
    ) as error:
        world.night(run_id="two")
    assert error.value.exit_code == 2 and pools in str(error.value)


def test_an_unreadable_record_of_the_run_in_force_stops_no_night(world, caplog):
    world.night(run_id="one")
    world.layout.run("one").night.write_text("{")
    two = world.night(run_id="two")
    assert (two["status"], two["version"]) == ("done", "one")
    assert "a night is passed over: " in caplog.text and "one/night.json" in caplog.text


def test_the_changes_are_kept_of_a_night_that_has_some(world):
    for name, is_kept in (("one", True), ("two", False)):
        world.night(run_id=name)
        assert world.layout.run(name).changes.exists() == is_kept


def test_a_night_that_is_not_valid_fails_and_goes_on_once_its_rows_are_mended(world):
    world.night(run_id="one")
    world.rows = entities("user", "u1", "u2", "u3", prompt="x") + entities("item", "i1", "i2")
    world.failing = ("u2", "u3")
    with pytest.raises(PublishError, match="2 of 3 planned users failed"):
        world.night()
    (failed,) = {path.parent.name for path in world.layout.runs.glob("*/night.json")} - {"one"}
    record = world.record(failed)
    assert record["status"] == "failed" and record["error"].startswith("validate: 2 of 3 planned")
    assert (record["counts"]["user"]["failed"], record["counts"]["user"]["kept_old"]) == (2, 1)
    assert snapshot_in_force(world.layout).version == "one" and world.reports == ["one", failed]

    world.failing = ()  # as `retry_failed=true` leaves it
    again = world.night(retry_failed=True)
    assert again["run_id"] == failed == snapshot_in_force(world.layout).version
    assert again["status"] == "done" and again["error"] is None and again["decode_sec"] == 4.0


@pytest.mark.parametrize("step", ["plan", "generate", "snapshot", "validate", "datastore", "publish"])
def test_a_night_that_stops_after_any_step_goes_on_under_its_id(world, step):
    stopped = world.night(nightly=NightlySettings(stop_after=step))
    assert stopped["status"] == "stopped" and stopped["steps"][-1]["name"] == step
    assert (snapshot_in_force(world.layout) is None) == (step != "publish")
    done = world.night()
    assert done["run_id"] == stopped["run_id"] == snapshot_in_force(world.layout).version
    assert done["status"] == "done" and versions(world.layout) == [done["run_id"]]


@pytest.fixture
def gate(world, monkeypatch) -> SimpleNamespace:
    """The quality gate: `error` is what it raises, `seen` each run it was given and what was in force."""
    gate = SimpleNamespace(error=None, seen=[])

    def check_quality(settings, run, source, encode, open_progress):
        in_force = snapshot_in_force(world.layout)
        gate.seen.append((run.root.name, in_force.version if in_force else None))
        if gate.error is not None:
            raise gate.error

    monkeypatch.setattr("pipeline.quality.check_quality", check_quality)
    return gate


GATED = {"quality": QualitySettings(enabled=True)}


def test_the_gate_stands_between_the_texts_and_their_snapshot(world, gate):
    night = world.night(run_id="one", **GATED)
    names = [step["name"] for step in night["steps"]]
    assert names[names.index("generate") :][:3] == ["generate", "quality", "snapshot"]
    assert gate.seen == [("one", None)] and snapshot_in_force(world.layout).version == "one"

    world.night(run_id="two", **GATED)
    assert len(gate.seen) == 1, "nothing changed, so there is nothing to judge"
    world.rows = entities("user", "u1", "u2", prompt="x") + entities("item", "i1", "i2", group="drama")
    world.night(run_id="three")
    assert len(gate.seen) == 1, "not unless it is enabled"


def test_a_night_that_the_gate_refuses_publishes_nothing(world, gate):
    world.night(run_id="one")
    world.rows = entities("user", "u1", "u2", prompt="x") + entities("item", "i1", "i2", group="drama")
    gate.error = QualityError("run_id=two: the relaxed texts are too far from strict ones")
    with pytest.raises(QualityError):
        world.night(run_id="two", **GATED)
    record = world.record("two")
    assert record["status"] == "failed" and record["steps"][-1]["name"] == "quality"
    assert record["error"] == "quality: run_id=two: the relaxed texts are too far from strict ones"
    assert gate.seen == [("two", "one")] and world.layout.current_snapshot.read_text() == "one\n"
    assert versions(world.layout) == ["one"] and not world.layout.snapshot("two").exists()

    gate.error = None  # as another budget leaves it
    assert world.night(run_id="two", **GATED)["status"] == "done"
    assert snapshot_in_force(world.layout).version == "two"


def test_a_night_may_stop_after_the_gate(world, gate):
    stopped = world.night(nightly=NightlySettings(stop_after="quality"), **GATED)
    assert stopped["status"] == "stopped" and stopped["steps"][-1]["name"] == "quality"
    assert snapshot_in_force(world.layout) is None


def test_a_stop_before_the_plan_leaves_the_name_to_the_next_night(world):
    stopped = world.night(nightly=NightlySettings(stop_after="tables"))
    assert stopped["status"] == "stopped"
    assert world.night()["run_id"] == stopped["run_id"]
