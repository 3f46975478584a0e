from types import SimpleNamespace

import pytest

from pipeline import road
from pipeline.errors import BusyError
from pipeline.storage.layout import RunLayout
from pipeline.storage.lock import exclusive


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
