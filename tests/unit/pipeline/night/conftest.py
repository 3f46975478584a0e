"""Nights whose texts are made by hand, without an engine."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline.models import ModelSource
from pipeline.night import night as night_module
from pipeline.night.night import run_night
from pipeline.prompts import RenderedPrompts
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, PROMPTS, USERS
from pipeline.settings import PathsSettings
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
