"""What the dry run of a night says, and that it leaves everything as it was."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pytest

from jobs import nightly
from jobs.config import load_settings
from pipeline import dry_run
from pipeline.errors import PublishError
from pipeline.models import ModelSource
from pipeline.night import dry_run as module
from pipeline.night.cutoff import cutoff_values
from pipeline.night.dry_run import dry_run_night
from pipeline.night.record import NightRecord
from pipeline.prompts import RenderedPrompts
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import LEFT, put_in_force
from pipeline.schemas import FAILED, GROUPS, PROMPTS
from pipeline.settings import KINDS, AcceptanceSettings, PathsSettings
from pipeline.storage.files import write_text
from pipeline.storage.layout import DatasetLayout
from tests.publishing import data_tables, entities, finished_run, settings_of

FIRST = entities("user", "u1", "u2") + entities("item", "i1", "i2")


@pytest.fixture
def layout(tmp_path) -> DatasetLayout:
    """A dataset with the version `one` in force."""
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2"), items=("i1", "i2"))
    content = content_of_run(layout, finished_run(layout, "one", FIRST), None)
    publish_run(layout, layout.run("one"), settings_of(), content, lambda name: nullcontext())
    return layout


@pytest.fixture
def tonight(monkeypatch):
    """Let a night find these entities."""

    def prepare(rows: list[dict]) -> None:
        prompts = pa.Table.from_pylist(rows, schema=PROMPTS)
        source = ModelSource("/m", "1", is_local=True, tokenizer_hash="0" * 64)
        rendered = RenderedPrompts(prompts, FAILED.empty_table())
        replaced = {
            "require_drafter_package": lambda name: None,
            "read_tables": lambda settings: SimpleNamespace(failed=FAILED.empty_table()),
            "group_tables": lambda *_: prompts.select(GROUPS.names),
            "choose_entities": lambda settings, groups: groups,
        }
        for name, function in replaced.items():
            monkeypatch.setattr(dry_run, name, function)
        monkeypatch.setattr(module, "render_apart", lambda *_: (rendered, source))

    monkeypatch.setattr("pipeline.night.planning.row_fingerprint", lambda *_: "t" * 16)
    return prepare


def settings_below(layout, **changes):
    return settings_of(paths=PathsSettings(data=str(layout.root.parent)), **changes)


def files(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_it_counts_what_a_night_would_do_and_touches_nothing(layout, tonight):
    tonight(entities("user", "u1", prompt="x") + entities("user", "u2", "u3") + entities("item", "i1"))
    before = files(layout.root.parent)
    found = dry_run_night(settings_below(layout))
    users, items = found.counts["user"], found.counts["item"]
    assert users | {"new": 1, "changed": 1, "carried": 1, "gone": 0, "planned": 2} == users
    assert items | {"new": 0, "changed": 0, "carried": 1, "gone": 1, "planned": 0} == items
    assert found.num_prompt_tokens == {"user": 4, "item": 0}, "two tokens for each that would be written"
    assert found.base_version == "one" and not found.is_unchanged
    assert files(layout.root.parent) == before

    tonight(FIRST)
    assert dry_run_night(settings_below(layout)).is_unchanged


def test_equal_prompts_are_counted_as_one_text(layout, tonight):
    """Two new users and a new and a changed item have the same prompt as another one."""
    rows = entities("user", "u1", "u2", "u3", "u4") + entities("item", "i1", "i2", "i3", "i4")
    for row in rows:
        if row["entity_id"] in ("u3", "u4", "i2", "i3", "i4"):
            row["prompt_hash"] = "same"
    tonight(rows)
    strict = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)
    found = dry_run_night(settings_below(layout, acceptance=strict))
    assert {kind: counts["planned"] for kind, counts in found.counts.items()} == {"user": 2, "item": 3}
    assert found.num_texts == {"user": 1, "item": 1}
    assert found.num_prompt_tokens == {"user": 2, "item": 2}
    relaxed = dry_run_night(settings_below(layout))
    assert relaxed.num_texts == {"user": 1, "item": 2}, "i2 has an earlier text, which drafts for it"


def test_it_fails_where_a_night_would_fail(layout, tonight):
    tonight(entities("user", "u9") + entities("item", "i1", "i2"))
    with pytest.raises(PublishError, match="2 of 2 users in force would leave"):
        dry_run_night(settings_below(layout))


@pytest.mark.parametrize("word", ["dry_run=false", "dry_run=true"])
@pytest.mark.parametrize(
    ("current", "said"),
    [
        ("one", "The current version is one, which this night published or confirmed."),
        ("two", "The current version is two; that of this night was one."),
        ("zero", "The current version is zero; version one of this night was rolled back."),
    ],
)
def test_the_job_of_a_night_that_is_done_says_so_and_what_is_current(tmp_path, capsys, word, current, said):
    words = ["dataset=movielens", f"paths.data={tmp_path}", "run_id=one", "history_cutoff=today"]
    layout = DatasetLayout.of(tmp_path, "movielens")
    record = NightRecord("movielens")
    record.begin(layout.run("one"), **cutoff_values(load_settings("nightly", words)))
    record.set(version="one", history_cutoff="2026-11-22T00:00:00+00:00")  # it is after midnight by now
    record.finish()
    with record.step("report"):
        pass
    put_in_force(layout, current)
    if current == "zero":
        write_text("", layout.snapshot("one") / LEFT)
    before = files(tmp_path)
    assert nightly.main([*words, word]) == 0
    shown = capsys.readouterr().out
    assert "Night one is done (it ended at 2" in shown and said in shown
    assert files(tmp_path) == before


def test_the_job_says_it_and_writes_nothing(tmp_path, smollm2, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text("movieId,title,genres\n1,Low Tide (1999),Drama\n2,Moth (2001),War\n")
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,1\n1,2,4,2\n2,1,3,3\n")
    words = [f"dataset.raw={raw}", f"paths.data={tmp_path / 'data'}", f"model.path={smollm2}", "limit=all"]
    assert nightly.main([*words, "model=smollm2-135m", "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert "the night would be the first. Nothing was generated or written." in shown
    rows = [line.split() for line in shown.splitlines()]
    planned = {row[0]: row[1:3] for row in rows if row and row[0] in KINDS}
    assert planned == {"user": ["2", "2"], "item": ["2", "2"]}
    assert re.search(r"Prompt tokens of the planned: items \d{3}, users \d{3}\.", shown)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
