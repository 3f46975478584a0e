"""The order of a night's steps and what it writes down; the texts are made by hand, without an engine."""

import errno
import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline.errors import (
    BusyError,
    CorruptPartError,
    DataError,
    PublishError,
    QualityError,
    StorageError,
    Terminated,
)
from pipeline.models import ModelSource
from pipeline.night import night as night_module
from pipeline.night.night import run_night
from pipeline.prompts import RenderedPrompts
from pipeline.publish.snapshot import snapshot_in_force, versions
from pipeline.publish_settings import NightlySettings, PublishSettings
from pipeline.quality_settings import QualitySettings
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, PROMPTS, USERS
from pipeline.settings import PathsSettings, ReportSettings
from pipeline.storage import files
from pipeline.storage.layout import DatasetLayout
from tests.publishing import entities, finished_run, settings_of

WRITE_REPORT = night_module._write_report


class World:
    """Tonight's data, and what the engine would make of it."""

    def __init__(self, tmp_path) -> None:
        self.layout = DatasetLayout.of(tmp_path, "toy")
        self.rows: list[dict] = []
        self.failing: tuple[str, ...] = ()
        self.changes: dict = {}  # of the knowledge rows
        self.num_generations = 0
        self.reports: list[str] = []
        self.broken: BaseException | None = None  # what reading the tables raises

    def tables(self, settings) -> SimpleNamespace:
        if self.broken is not None:
            raise self.broken
        empty = {"users": USERS, "items": ITEMS, "interactions": INTERACTIONS, "failed": FAILED}
        return SimpleNamespace(**{name: schema.empty_table() for name, schema in empty.items()})

    def prompts(self, *_) -> RenderedPrompts:
        return RenderedPrompts(pa.Table.from_pylist(self.rows, PROMPTS), FAILED.empty_table())

    def groups(self, *_) -> pa.Table:
        return self.prompts().prompts.select(GROUPS.names)

    def generate(self, settings, layout, run, source, open_progress):
        self.num_generations += 1
        by_id = {(row["kind"], row["entity_id"]): row for row in self.rows}
        keys = zip(run.plan["kind"].to_pylist(), run.plan["entity_id"].to_pylist(), strict=True)
        rows = [by_id[key] for key in keys]
        token = 2 + self.num_generations
        finished_run(layout, run.run_id, rows, token, failing=self.failing, **self.changes)
        outcome = SimpleNamespace(num_shards_run=1, decode_sec=2.0, require_complete=lambda **_: None)
        return None, outcome

    def night(self, **changes) -> dict:
        settings = settings_of(paths=PathsSettings(data=str(self.layout.root.parent)), **changes)
        report = run_night(settings, lambda: nullcontext())
        return json.loads(self.layout.run(report.run_id).night.read_text())

    def record(self, run_id: str) -> dict:
        return json.loads(self.layout.run(run_id).night.read_text())


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    world = World(tmp_path)
    replaced = {
        "require_drafter_package": lambda name: None,
        "read_tables": world.tables,
        "group_tables": world.groups,
        "choose_entities": lambda settings, groups: groups,
        "render_chosen": world.prompts,
        "resolve_model": lambda *_: ModelSource("/m", "1", is_local=True, tokenizer_hash="0" * 64),
        "generate_plan": world.generate,
        "record_summary": lambda *_: None,
        "_write_report": lambda run, layout, gateway: world.reports.append(run.root.name),
    }
    for name, function in replaced.items():
        monkeypatch.setattr(night_module, name, function)
    monkeypatch.setattr("pipeline.night.planning.row_fingerprint", lambda *_: "t" * 16)
    world.rows = entities("user", "u1", "u2") + entities("item", "i1", "i2", group="drama")
    return world


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


def test_a_night_that_is_not_valid_fails_and_goes_on_once_its_rows_are_mended(world):
    world.night(run_id="one")
    world.rows = entities("user", "u1", "u2", "u3", prompt="x") + entities("item", "i1", "i2")
    world.failing = ("u2", "u3")
    with pytest.raises(PublishError, match="2 of 3 planned texts failed"):
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


@pytest.fixture
def pushed(monkeypatch) -> list[str]:
    """Gateways that a report went to; reports are real."""
    gateways: list[str] = []
    monkeypatch.setattr("pipeline.report.write.push", lambda figures, gateway: gateways.append(gateway))
    return gateways


@pytest.fixture
def reporting(monkeypatch, pushed, world) -> World:
    monkeypatch.setattr(night_module, "_write_report", WRITE_REPORT)
    return world


GATEWAY = ReportSettings(pushgateway="gateway:9091")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("u.data: no such file"), "u.data: no such file"),
        (ZeroDivisionError("unexpected"), "unexpected"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Terminated(), "ended by SIGTERM"),
    ],
)
def test_a_night_that_fails_before_its_plan_is_recorded_and_reported(reporting, pushed, error, reason):
    reporting.broken = error
    with pytest.raises(type(error)):
        reporting.night(report=GATEWAY, run_id="mine")
    record, run = reporting.record("mine"), reporting.layout.run("mine")
    assert (record["status"], record["error"]) == ("failed", f"tables: {reason}")
    assert "The night failed at step tables" in run.report("md").read_text()
    assert reason in run.report("md").read_text()
    assert 'knowledge_run_success{dataset="toy"} 0.0' in run.metrics.read_text()
    assert pushed == ["gateway:9091"]

    reporting.broken = None
    done = reporting.night(run_id="mine")
    assert (done["status"], done["run_id"]) == ("done", "mine")


def test_what_is_unexpected_in_a_later_step_is_reported_too(reporting, monkeypatch):
    monkeypatch.setattr(night_module, "content_of_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reporting.night(run_id="mine")
    assert reporting.record("mine")["status"] == "failed"
    assert "division by zero" in reporting.layout.run("mine").report("md").read_text()


def test_a_failing_report_does_not_hide_why_the_night_failed(world, monkeypatch):
    monkeypatch.setattr(night_module, "_write_report", lambda *_: {}["key"])
    world.broken = DataError("u.data: no such file")
    with pytest.raises(DataError, match=r"u\.data"):
        world.night()


def test_a_night_without_changes_is_pushed_too(reporting, pushed):
    reporting.night(run_id="one", report=GATEWAY)
    reporting.night(run_id="two", report=GATEWAY)
    assert reporting.num_generations == 1 and not reporting.layout.run("two").manifest.exists()
    assert pushed == ["gateway:9091"] * 2


def test_a_stop_before_the_plan_leaves_the_name_to_the_next_night(world):
    stopped = world.night(nightly=NightlySettings(stop_after="tables"))
    assert stopped["status"] == "stopped"
    assert world.night()["run_id"] == stopped["run_id"]


def taken_over(world: World) -> dict[str, str]:
    """Another machine's night takes the lock, and what every file of the runs holds then."""
    record = world.layout.lock.with_name("night.lock.owner")
    owner = json.loads(record.read_text())
    record.write_text(json.dumps(owner | {"host": "elsewhere", "started_at": 1.0}))
    return files_of_runs(world)


def files_of_runs(world: World) -> dict[str, str]:
    return {
        str(path): path.read_text() for path in world.layout.runs.glob("*/*.*") if "parquet" not in str(path)
    }


@pytest.mark.parametrize("failing", ["content_of_run", "publish_run"])
def test_a_night_that_lost_its_lock_leaves_record_and_report_to_the_new_owner(
    reporting, monkeypatch, failing
):
    before: dict[str, str] = {}
    real = getattr(night_module, failing)

    def stalls(*arguments):
        before.update(taken_over(reporting))
        return real(*arguments)

    monkeypatch.setattr(night_module, failing, stalls)
    with pytest.raises(BusyError, match="this process lost the lock; it belongs to mine on elsewhere"):
        reporting.night(run_id="mine")
    assert files_of_runs(reporting) == before and not reporting.layout.run("mine").report("md").exists()
    assert json.loads(before[str(reporting.layout.run("mine").night)])["status"] == "running"
    assert snapshot_in_force(reporting.layout) is None


class FullDisk:
    """A disk that takes no file once it is full; small ones when the reserve is given up."""

    def __init__(self, layout: DatasetLayout) -> None:
        self.layout = layout
        self.is_full = False
        self.write = files._renamed

    @contextmanager
    def renamed(self, path):
        is_large = path == self.layout.reserve or path.suffix == ".parquet"
        if self.is_full and (self.layout.reserve.exists() or is_large):
            raise OSError(errno.ENOSPC, "No space left on device")
        with self.write(path) as temporary:
            yield temporary


@pytest.fixture
def disk(reporting, monkeypatch) -> FullDisk:
    disk = FullDisk(reporting.layout)
    monkeypatch.setattr(files, "_renamed", disk.renamed)
    return disk


@pytest.mark.parametrize("is_full_at", ["owned", "read_tables", "content_of_run", "_write_report"])
def test_a_night_on_a_full_disk_is_told_by_record_metrics_report_and_gateway(
    reporting, disk, pushed, monkeypatch, is_full_at
):
    reporting.night(run_id="one")
    assert 'knowledge_run_success{dataset="toy"} 1.0' in reporting.layout.metrics.read_text()
    real = getattr(night_module, is_full_at)

    def fills(*arguments):
        disk.is_full = True
        return real(*arguments)

    monkeypatch.setattr(night_module, is_full_at, fills)
    reporting.rows = reporting.rows + entities("user", "u3")
    with pytest.raises(StorageError, match="no space left on device"):
        reporting.night(run_id="two", report=GATEWAY)
    record, run = reporting.record("two"), reporting.layout.run("two")
    assert record["status"] == "failed" and "no space left on device" in record["error"]
    assert 'knowledge_run_success{dataset="toy"} 0.0' in reporting.layout.metrics.read_text()
    assert "**FAILED: The night failed" in run.report("md").read_text()
    assert set(pushed) == {"gateway:9091"}

    disk.is_full = False
    monkeypatch.setattr(night_module, is_full_at, real)
    assert reporting.night()["status"] == "done" and reporting.layout.reserve.exists()
