"""A prompt that sees an event at or after the cutoff ends a whole job before anything is generated."""

import pytest

from jobs import generate, nightly
from pipeline import road
from pipeline.prompts import RenderedPrompts
from pipeline.storage.layout import DatasetLayout

RENDER = road.render_prompts
CUTOFF = "history_cutoff=2026-11-22T00:00Z"
AT_THE_CUTOFF = 1795305600
BEFORE = AT_THE_CUTOFF - 1


@pytest.fixture
def words(tmp_path, smollm2) -> list[str]:
    """Overrides over two users, one of whom rated at the cutoff."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text("movieId,title,genres\n1,Low Tide (1999),Drama\n2,Moth (2001),War\n")
    ratings = [f"1,1,5,{BEFORE}", f"2,1,3,{BEFORE}", f"2,2,4,{AT_THE_CUTOFF}"]
    (raw / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings, ""]))
    return [
        f"dataset.raw={raw}", f"paths.data={tmp_path / 'data'}", "limit=all", "model=smollm2-135m",
        f"model.path={smollm2}", "run_id=mine", CUTOFF,
    ]  # fmt: skip


@pytest.fixture
def generations(monkeypatch) -> list[str]:
    """Runs whose shards were run; none really is."""
    runs: list[str] = []

    def run_shards(plan, spec, *_) -> None:
        runs.append(spec.run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr(road, "run_shards", run_shards)
    return runs


def sees_everything(tables, chosen, knowledge, model, word, tokenizer, cutoff, **more) -> RenderedPrompts:
    """A renderer that forgets the cutoff."""
    return RENDER(tables, chosen, knowledge, model, word, tokenizer, None, **more)


@pytest.mark.parametrize("job", [generate, nightly])
def test_no_job_generates_from_prompts_that_see_events_at_the_cutoff(
    job, words, generations, monkeypatch, tmp_path, capsys
):
    with monkeypatch.context() as patched:
        patched.setattr(road, "render_prompts", sees_everything)
        assert job.main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "user 2: the prompt shows an event of 2026-11-22 00:00:00" in line
    run = DatasetLayout.of(tmp_path / "data", "movielens").run("mine")
    assert generations == [] and not run.plan.exists() and not run.parts.exists()

    assert job.main(words) == 130 and generations == ["mine"], "a renderer that minds the cutoff gets there"
