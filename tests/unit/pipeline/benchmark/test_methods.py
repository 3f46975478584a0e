import pytest

from pipeline.benchmark.methods import compared_methods, strict_laser
from tests.generation import run_settings


@pytest.fixture
def names(monkeypatch):
    def of(methods, has_arctic=True):
        monkeypatch.setattr("pipeline.benchmark.methods.find_spec", lambda name: has_arctic or None)
        settings = run_settings()
        bench = settings.bench.model_copy(update={"methods": methods})
        return [method.name for method in compared_methods(settings.model_copy(update={"bench": bench}))]

    return of


def test_decoding_without_drafts_is_always_measured_and_first(names):
    assert names(["laser-relaxed"]) == ["none", "laser-relaxed"]
    assert names(["ngram", "none"]) == ["none", "ngram"]


def test_suffix_decoding_is_left_out_without_its_package(names):
    assert names(["suffix", "laser-strict"], has_arctic=False) == ["none", "laser-strict"]
    assert names(["suffix", "laser-strict"]) == ["none", "suffix", "laser-strict"]


def test_the_options_of_the_relaxed_rule_are_methods_of_their_own():
    settings = run_settings()
    bench = settings.bench.model_copy(
        update={"methods": ["laser-relaxed", "laser-guarded", "laser-deferred"]}
    )
    methods = compared_methods(settings.model_copy(update={"bench": bench}))
    assert [method.acceptance.label for method in methods[1:]] == [
        "relaxed(k=2,p=0.1)",
        "relaxed(k=2,p=0.1,run=1)",
        "relaxed(k=2,p=0.1,deferred=2)",
    ]


def test_the_warm_pool_is_written_strictly():
    assert strict_laser(run_settings()).acceptance.label == "strict"
