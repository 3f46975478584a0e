import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline import road
from pipeline.errors import BusyError
from pipeline.models.resolve import ModelSource
from pipeline.outline import outline_plan
from pipeline.road import PlannedRun
from pipeline.scale.synthetic import prompt_batches
from pipeline.schemas import FAILED
from pipeline.storage.files import write_json
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.lock import exclusive
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings


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
