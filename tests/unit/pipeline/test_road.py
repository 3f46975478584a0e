import json
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline import road
from pipeline.errors import BusyError, GenerationError
from pipeline.generate.contract import ShardResult
from pipeline.generate.dispatch import GenerationOutcome
from pipeline.generate.progress import NO_PROGRESS
from pipeline.models.resolve import ModelSource
from pipeline.outline import outline_plan
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.report.gather import gather
from pipeline.road import PlannedRun
from pipeline.scale.synthetic import prompt_batches
from pipeline.schemas import FAILED, KNOWLEDGE, PROMPTS
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.lock import exclusive
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings
from tests.publishing import data_tables, entities, finished_run, settings_of


def test_a_run_that_another_process_works_on_keeps_its_plan(tmp_path, monkeypatch):
    """The workers of the other process read their rows from that plan."""
    monkeypatch.setattr(road, "vocabulary_size", lambda *_: 100)
    layout = RunLayout(tmp_path / "runs" / "run")
    layout.root.mkdir(parents=True)
    layout.plan.write_text("of the other process")
    run = SimpleNamespace(layout=layout)
    settings = SimpleNamespace(model=SimpleNamespace(trust_remote_code=False))
    with exclusive(layout.root), pytest.raises(BusyError, match="another process is generating this run"):
        road.generate_plan(settings, None, run, SimpleNamespace(path=""), None)
    assert layout.plan.read_text() == "of the other process"


def test_a_run_that_finished_nothing_drafts_from_what_its_cutoff_allows_now(tmp_path, monkeypatch):
    """Its first try may have drafted from pools that saw what the second must not."""
    layout = DatasetLayout(tmp_path / "toy")
    prompts = pa.concat_tables(prompt_batches(4))
    run = PlannedRun("run", layout.run("run"), outline_plan(prompts, 2), prompts, FAILED.empty_table(), None)
    source = ModelSource("model", "revision", True, "0")
    usable = {None: "pools-of-all-time", datetime(1998, 1, 1, tzinfo=UTC): None}
    monkeypatch.setattr(road, "usable_version", lambda *arguments: usable[arguments[-1]])

    def recorded(cutoff):
        settings = run_settings().model_copy(update={"history_cutoff": cutoff})
        spec = road._worker_spec(settings, layout, run, source, 64)
        assert json.loads(run.layout.manifest.read_text())["datastore_version"] == spec.datastore_version
        return spec.datastore_version

    assert [recorded(cutoff) for cutoff in usable] == list(usable.values())
    commit_part(run.layout, make_result("s-0", make_plan(1, 2)), FINGERPRINT)
    write_json({"datastore_version": "begun-with"}, run.layout.manifest)
    monkeypatch.setattr(road, "_reject_other_run", lambda *_: None)
    assert recorded(None) == "begun-with"


def generate(tmp_path, monkeypatch, **changes):
    """A run of four texts, the first `num_changed` (default: all) with `changes`; without an engine."""
    layout, plan = DatasetLayout.of(tmp_path, "toy"), make_plan(1, 4)
    num_changed = changes.pop("num_changed", 4)
    run = PlannedRun("run", layout.run("run"), plan, plan, FAILED.empty_table(), None)
    result = make_result("item-00000", plan)
    rows = [row | (changes if n < num_changed else {}) for n, row in enumerate(result.knowledge.to_pylist())]
    monkeypatch.setattr(road, "resolve_model", lambda *_: ModelSource("model", "revision", True, "0"))
    monkeypatch.setattr(road, "_prepare", lambda *_: run)
    monkeypatch.setattr(road, "_report", lambda *arguments: arguments[3:])
    monkeypatch.setattr(road, "vocabulary_size", lambda *_: 64)

    def written(*_):
        knowledge = pa.Table.from_pylist(rows, KNOWLEDGE)
        commit_part(run.layout, ShardResult(result.shard, knowledge, result.failed), FINGERPRINT)
        write_parquet(FAILED.empty_table(), run.layout.failed)
        write_parquet(plan, run.layout.plan)
        write_json({"num_planned": 4, "datastore_version": None}, run.layout.manifest)
        return SimpleNamespace(datastore_version=None), GenerationOutcome(4, 4, 0, 1, {}, NO_PROGRESS, 1.0)

    monkeypatch.setattr(road, "generate_plan", written)
    try:
        return layout, road.generate_knowledge(run_settings(str(tmp_path)), lambda: None)
    except GenerationError as error:
        return layout, error


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": " "}, "4 of 4 texts are empty, more than publish.max_empty_fraction=0.01"),
        (
            {"finish_reason": "repetition"},
            "4 of 4 texts are looping, more than publish.max_looping_fraction=0.05",
        ),
        (
            {"num_control_tokens": 2, "num_changed": 2},
            "2 of 4 texts hold control tokens, more than publish.max_control_token_fraction=0.01",
        ),
    ],
)
def test_a_run_whose_texts_could_not_be_published_fails(tmp_path, monkeypatch, changes, reason):
    layout, error = generate(tmp_path, monkeypatch, **changes)
    assert str(error).startswith(reason) and error.exit_code == 1
    assert not layout.datastore.exists(), "no run drafts from such texts"
    verdict = gather(layout.run("run"), layout).verdict
    assert (verdict.state, verdict.reason) == ("failed", reason)


def test_one_bad_text_of_a_handful_is_no_failure(tmp_path, monkeypatch):
    layout, (summary, version) = generate(tmp_path, monkeypatch, text="", num_changed=1)
    assert summary.kinds[0].outputs.num_empty == 1 and version is not None
    assert gather(layout.run("run"), layout).verdict.state == "done"


@pytest.mark.parametrize("is_published", [True, False])
def test_prompts_that_texts_in_the_pools_answer_already_are_counted(tmp_path, caplog, is_published):
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2"), items=())
    before = finished_run(layout, "before", entities("user", "u1", "u2"))
    if is_published:
        content = content_of_run(layout, before, None)
        publish_run(layout, before, settings_of(), content, lambda name: nullcontext())
    prompts = pa.Table.from_pylist(
        entities("user", "u1") + entities("user", "u2", prompt="x"), schema=PROMPTS
    )
    run = PlannedRun("run", layout.run("run"), outline_plan(prompts, 2), prompts, FAILED.empty_table(), None)
    for pools, expected in ((None, 0), ("pools", 1)):
        write_json({}, run.layout.manifest)
        road._note_repeats(layout, run, pools)
        assert json.loads(run.layout.manifest.read_text()) == {"num_repeated_prompts": expected}
    assert "1 of 2 prompts were answered before" in caplog.text
    road._note_repeats(layout, run, None)  # a session that goes on keeps what the first one found
    assert json.loads(run.layout.manifest.read_text()) == {"num_repeated_prompts": 1}
