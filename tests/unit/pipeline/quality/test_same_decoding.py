"""A run is judged by the model that wrote it, or not at all."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from jobs import quality
from pipeline.errors import ConfigError, DataError
from pipeline.models import ModelSource
from pipeline.quality import check_quality
from pipeline.quality.same_decoding import require_same_decoding
from pipeline.storage.files import write_json
from pipeline.storage.layout import DatasetLayout, RunLayout
from tests.generation import run_settings

SOURCE = ModelSource("/models/toy", "sha256-1234", is_local=True, tokenizer_hash="a" * 64)
SETTINGS = run_settings()


def write_manifest(run: RunLayout, settings=SETTINGS) -> None:
    write_json(
        {
            "model_revision": SOURCE.revision,
            "tokenizer_hash": SOURCE.tokenizer_hash,
            "settings": settings.model_dump(mode="json"),
        },
        run.manifest,
    )


@pytest.fixture
def run(tmp_path) -> RunLayout:
    run = RunLayout(tmp_path / "night-1")
    write_manifest(run)
    return run


def with_model(**changes):
    return SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update=changes)})


def with_sampling(**changes):
    return with_model(sampling=SETTINGS.model.sampling.model_copy(update=changes))


def test_the_same_model_may_lie_elsewhere_on_more_gpus(run):
    require_same_decoding(run, SETTINGS, SOURCE)
    require_same_decoding(run, with_model(path="/mnt/toy", tensor_parallel_size=2), SOURCE)


@pytest.mark.parametrize(
    ("settings", "source", "named"),
    [
        (
            with_model(name="other"),
            replace(SOURCE, revision="sha256-5678"),
            "model: toy (sha256-1234), now other (sha256-5678)",
        ),
        (SETTINGS, replace(SOURCE, tokenizer_hash="b" * 64), f"tokenizer: {'a' * 15}, now {'b' * 15}"),
        (with_model(dtype="float32"), SOURCE, "model.dtype: auto, now float32"),
        (
            with_sampling(repetition_penalty=1.1, presence_penalty=0.5),
            SOURCE,
            "model.sampling.presence_penalty: 0.0, now 0.5; model.sampling.repetition_penalty: 1.0, now 1.1",
        ),
    ],
)
def test_what_differs_is_named_and_nothing_is_written(run, settings, source, named):
    run.quality.write_text("{}")
    with pytest.raises(ConfigError) as caught:
        check_quality(settings, run, source, encode=None, open_progress=None)
    assert str(caught.value) == (
        f"run_id=night-1: it was written otherwise than these settings would ({named}); "
        "check it with the settings that it was written with"
    )
    assert run.quality.read_text() == "{}" and not (run.root / "quality").exists()


def test_a_run_that_does_not_say_how_it_was_written_is_not_judged(tmp_path):
    with pytest.raises(DataError, match=r"night-2: it has no manifest\.json"):
        require_same_decoding(RunLayout(tmp_path / "night-2"), SETTINGS, SOURCE)


def test_the_job_refuses_another_model_with_exit_code_2(tmp_path, monkeypatch, capsys):
    run = DatasetLayout.of(tmp_path, "movielens").run("n1")
    write_manifest(run)
    run.plan.write_bytes(b"")
    found = SimpleNamespace(revision="other", tokenizer_hash=SOURCE.tokenizer_hash)
    monkeypatch.setattr("pipeline.models.resolve_model", lambda *_: found)
    assert quality.main([f"paths.data={tmp_path}", "run_id=n1", "model=qwen3-4b"]) == 2
    assert "model: toy (sha256-1234), now qwen3-4b (other)" in capsys.readouterr().err
