"""Nights whose texts are made by hand, without an engine."""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from uuid import uuid4

import pyarrow as pa
import pytest

from pipeline.generate.time_series import append_line
from pipeline.models import ModelSource
from pipeline.night import night as night_module
from pipeline.night.night import run_night
from pipeline.prompts import RenderedPrompts
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, PROMPTS, USERS
from pipeline.settings import PathsSettings
from pipeline.storage.files import write_json
from pipeline.storage.layout import DatasetLayout
from tests.publishing import NOW, entities, finished_run, settings_of

WRITE_REPORT = night_module._write_report


class World:
    """Tonight's data, and what the engine would make of it."""

    def __init__(self, tmp_path) -> None:
        self.layout = DatasetLayout.of(tmp_path, "toy")
        self.rows: list[dict] = []
        self.failing: tuple[str, ...] = ()
        self.unprompted: list[dict] = []  # entities that get no prompt
        self.changes: dict = {}  # of the knowledge rows
        self.num_generations = 0
        self.reports: list[str] = []
        self.broken: BaseException | None = None  # what reading the tables raises
        self.summary: dict | None = None  # of the run's manifest
        self.killed: BaseException | None = None  # what ends the decoding

    def tables(self, settings) -> SimpleNamespace:
        if self.broken is not None:
            raise self.broken
        empty = {"users": USERS, "items": ITEMS, "interactions": INTERACTIONS, "failed": FAILED}
        return SimpleNamespace(**{name: schema.empty_table() for name, schema in empty.items()})

    def prompts(self, *_) -> RenderedPrompts:
        failed = [{"stage": "prompt", "reason": "too long", **_named(row)} for row in self.unprompted]
        return RenderedPrompts(pa.Table.from_pylist(self.rows, PROMPTS), pa.Table.from_pylist(failed, FAILED))

    def groups(self, *_) -> pa.Table:
        return pa.Table.from_pylist([*self.rows, *self.unprompted], PROMPTS).select(GROUPS.names)

    def generate(self, settings, layout, run, source, open_progress):
        self.num_generations += 1
        by_id = {(row["kind"], row["entity_id"]): row for row in self.rows}
        keys = zip(run.plan["kind"].to_pylist(), run.plan["entity_id"].to_pylist(), strict=True)
        rows = [by_id[key] for key in keys]
        token = 2 + self.num_generations
        self.decode(run.run_id)
        if self.killed is not None:
            raise self.killed
        done = finished_run(layout, run.run_id, rows, token, failing=self.failing, **self.changes)
        if self.summary is not None:
            write_json(json.loads(done.manifest.read_text()) | {"summary": self.summary}, done.manifest)
        return None, SimpleNamespace(num_shards_run=1, require_complete=lambda **_: None)

    def decode(self, run_id: str) -> None:
        """A session of two seconds at 50 tokens/s."""
        line = {
            "time": NOW.isoformat(), "session": uuid4().hex, "decode_sec": 2.0, "num_rows_done": 0,
            "num_workers": 1, "num_decoded_tokens": 100, "num_engine_steps": 10, "drafter_sec": 0.1,
            "num_running": 1, "price": None, "sources": {},
        }  # fmt: skip
        append_line(self.layout.run(run_id).progress, json.dumps(line) + "\n")

    def night(self, **changes) -> dict:
        settings = settings_of(paths=PathsSettings(data=str(self.layout.root.parent)), **changes)
        report = run_night(settings, lambda: nullcontext())
        return json.loads(self.layout.run(report.run_id).night.read_text())

    def record(self, run_id: str) -> dict:
        return json.loads(self.layout.run(run_id).night.read_text())


def _named(row: dict) -> dict:
    return {name: row[name] for name in ("kind", "entity_id")}


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
