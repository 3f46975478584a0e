"""The order of a night's steps and what it writes down; the texts are made by hand, without an engine."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline.errors import PublishError
from pipeline.models import ModelSource
from pipeline.night import night as night_module
from pipeline.night.night import run_night
from pipeline.prompts import RenderedPrompts
from pipeline.publish.snapshot import snapshot_in_force, versions
from pipeline.publish_settings import NightlySettings
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, PROMPTS, USERS
from pipeline.settings import PathsSettings
from pipeline.storage.layout import DatasetLayout
from tests.publishing import entities, finished_run, settings_of


class World:
    """Tonight's data, and what the engine would make of it."""

    def __init__(self, tmp_path) -> None:
        self.layout = DatasetLayout.of(tmp_path, "toy")
        self.rows: list[dict] = []
        self.failing: tuple[str, ...] = ()
        self.changes: dict = {}  # of the knowledge rows
        self.num_generations = 0
        self.reports: list[str] = []

    def tables(self, settings) -> SimpleNamespace:
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
        "_write_report": lambda run, layout: world.reports.append(run.root.name),
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


def test_a_night_that_is_not_valid_fails_and_goes_on_once_its_rows_are_mended(world):
    world.night(run_id="one")
    world.rows = entities("user", "u1", "u2", prompt="x")
    world.failing = ("u2",)
    with pytest.raises(PublishError, match="1 of 2 planned texts failed"):
        world.night()
    (failed,) = {path.parent.name for path in world.layout.runs.glob("*/night.json")} - {"one"}
    record = world.record(failed)
    assert record["status"] == "failed" and record["error"].startswith("validate: 1 of 2 planned")
    assert record["counts"]["user"]["failed"] == record["counts"]["user"]["kept_old"] == 1
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
