"""The knowledge sets are made from what lies before validation and test."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from pipeline.evaluate import run
from tests.evaluation import DAILY, START, tables_of
from tests.generation import run_settings


class AskedError(Exception):
    """Carries what was asked for instead of generating it."""


def test_no_prompt_sees_a_rating_that_stops_or_tests_a_training(monkeypatch):
    def generate_sets(settings, *_):
        raise AskedError(settings.history_cutoff)

    monkeypatch.setattr(run, "_require_ctr_library", lambda: None)
    monkeypatch.setattr(run, "resolve_model", lambda *_: SimpleNamespace(path="/models/toy", revision="1"))
    monkeypatch.setattr(run, "read_tables", lambda _: tables_of(DAILY))
    monkeypatch.setattr(run, "generate_sets", generate_sets)
    settings = run_settings().model_copy(update={"history_cutoff": START + timedelta(days=30)})
    with pytest.raises(AskedError) as caught:
        run.evaluate(settings, lambda texts: None, lambda: None)
    assert caught.value.args[0] == START + timedelta(days=27)  # 27 to 29 validate, 30 to 39 test
