import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from jobs.config import load_settings
from jobs.generate import main
from pipeline import road
from pipeline.acceptance_settings import AcceptanceOverrideSettings
from pipeline.domains.raw import failures
from pipeline.dry_run import dry_run, render_dry_run
from pipeline.errors import ConfigError, DataError


@pytest.fixture
def overrides(tmp_path, smollm2) -> list[str]:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text(
        "movieId,title,genres\n1,Low Tide (1999),Drama\n2,Moth (2001),[b]War[/b]\n"
    )
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,1\n1,2,4,2\n2,1,3,3\n2,9,3,3\n")
    return [
        f"dataset.raw={raw}",
        f"paths.data={tmp_path / 'data'}",
        f"model.path={smollm2}",
        "model=smollm2-135m",
        "dataset.max_bad_fraction=0.5",
        "limit=all",
        "dry_run=true",
        "knowledge=kar",
    ]


@pytest.fixture
def settings(overrides):
    return load_settings("generate", overrides)


def shown(settings) -> str:
    out = Console(file=io.StringIO(), width=100)
    render_dry_run(dry_run(settings), out)
    return out.file.getvalue()


def test_it_says_what_was_understood(settings):
    result = dry_run(settings)
    assert result.num_rows == {"users": 2, "items": 2, "interactions": 3}
    [(file, count, reason)] = result.bad_rows
    assert (Path(file).name, count, reason) == ("ratings.csv", 1, "unknown item '9'")
    assert result.groups["item"] == [("drama", 1), ("other", 1)]
    assert {kind: len(prompts) for kind, prompts in result.prompts.items()} == {"item": 2, "user": 2}
    lengths = result.lengths["user"]
    assert 50 < lengths.median <= lengths.p95 <= lengths.longest < 500
    assert result.estimate.num_output_tokens == 4 * 128


def test_it_shows_groups_prompts_lengths_and_time_and_that_nothing_was_written(settings, tmp_path):
    text = shown(settings)
    for expected in (
        "2 users, 2 items, 3 interactions",
        "Bad rows: 1",
        "drama 1",
        "<|im_start|>user",
        "Low Tide",
        "longest",
        "tokens/s",
        "Nothing was generated or written",
    ):
        assert expected in text
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_one_of_a_kind_is_counted_as_in_english(overrides):
    raw = Path(next(word for word in overrides if word.startswith("dataset.raw=")).partition("=")[2])
    (raw / "movies.csv").write_text("movieId,title,genres\n1,Low Tide (1999),Drama\n")
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,1,1\n")
    found = shown(load_settings("generate", [*overrides, "model.prompt_form=large"]))
    for line in (
        "Understood: 1 user, 1 item, 1 interaction\n",
        "1 item group: drama 1\n",
        "1 user group: cluster-00 1\n",
        'rating history over time: "Low Tide (1999)", 1 star.',
        "Generation for 1 item and 1 user would write",
    ):
        assert line in found


def test_it_hints_at_factors_of_ones_own_where_the_prompt_set_has_none_for_the_item_word(overrides):
    hint = "texts are asked to go into topic, style, quality, purpose, audience, origin, and reputation ("
    large = [*overrides, "model.prompt_form=large"]
    for word, has_hint in (("movie", False), ("Movie", False), ("garment", True)):
        found = shown(load_settings("generate", [*large, f"dataset.item_word={word}"]))
        assert (hint in found) is has_hint, word
        assert f"Introduce the following {word} and describe its attributes" in found
    assert hint not in shown(load_settings("generate", [*overrides, "dataset.item_word=garment"]))
    named = [*large, "dataset.item_word=garment", "knowledge.factors.Garment='fabric, cut and care'"]
    found = shown(load_settings("generate", named))
    assert "docs/new-domain.md" not in found and found.count("fabric, cut and care") == 4
    without = [*overrides, "knowledge=once", "dataset.item_word=garment"]
    assert "docs/new-domain.md" not in shown(load_settings("generate", without))


def test_bad_rows_that_are_not_listed_are_counted(settings, monkeypatch):
    monkeypatch.setattr(failures, "MAX_LISTED", 2)
    ratings = Path(settings.dataset.raw) / "ratings.csv"
    ratings.write_text(ratings.read_text() + "".join(f"2,{item},3,3\n" for item in range(20, 23)))
    dataset = settings.dataset.model_copy(update={"max_bad_fraction": 1.0})
    settings = settings.model_copy(update={"dataset": dataset})
    assert [(count, reason) for _, count, reason in dry_run(settings).bad_rows] == [(4, "unknown item '9'")]
    assert "Bad rows: 4;" in shown(settings)


def test_what_data_says_reaches_no_terminal_as_a_command(settings):
    raw = Path(settings.dataset.raw)
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,1\n1,\x1b]0;x\x07,4,2\n")
    text = shown(settings)
    assert "unknown item '\\x1b]0;x\\x07'" in text
    assert "\x1b" not in text and "\x07" not in text


def test_it_shows_when_the_interactions_were(settings):
    assert dry_run(settings).times == ("1970-01-01 00:00:01", "1970-01-01 00:00:03")
    assert "Interactions from 1970-01-01 00:00:01 to 1970-01-01 00:00:03 (UTC)" in shown(settings)


def test_it_says_what_prompts_leave_out(settings):
    genres = "|".join(f"g{number}" for number in range(21))
    movies = Path(settings.dataset.raw) / "movies.csv"
    assert dry_run(settings).overfull == {}
    movies.write_text(movies.read_text() + f"3,Long,{genres}\n")
    assert dry_run(settings).overfull == {"categories of items": 1}
    assert "Prompts show the first 20 categories of items; 1 has more" in shown(settings)


def test_the_job_does_nothing_else(overrides, tmp_path, capsys):
    assert main(overrides) == 0
    assert "Understood: 2 users" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_a_prompt_set_of_your_own_is_one_file(overrides, tmp_path, capsys):
    own = tmp_path / "configs" / "knowledge" / "ours.yaml"
    own.parent.mkdir(parents=True)
    prompt = {"max_tokens": 40, "max_words": 20}
    own.write_text(json.dumps({
        "name": "ours",
        "max_history": 1,
        "user": prompt | {"template": "Say {{ max_words }} words on who rated {{ history[0][0].name }}."},
        "item": prompt | {"template": "Who likes {{ item.name }}?", "json_output": {"keys": ["who"]}},
    }))  # fmt: skip
    assert main([f"--config-dir={tmp_path / 'configs'}", *overrides[:-1], "knowledge=ours"]) == 0
    shown = capsys.readouterr().out
    assert "Say 20 words on who rated Moth (2001)." in shown
    assert "Who likes Low Tide (1999)?" in shown
    assert "160 tokens" in shown


def test_a_package_that_a_drafter_needs_is_named_before_any_work(overrides, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.generate.optional_packages.find_spec", lambda name: None)
    assert main([*overrides, "drafter=suffix"]) == 2
    assert main([*overrides, "drafter=suffix", "dry_run=false"]) == 2
    line = "error: drafter=suffix: the package arctic-inference is not installed; `make bench-tools` does it"
    assert capsys.readouterr().err.splitlines() == [line, line]


def test_the_estimate_rests_on_the_last_run_of_the_model(settings):
    run = Path(settings.paths.data) / "movielens" / "runs" / "earlier"
    run.mkdir(parents=True)
    kinds = {
        kind: {"num_rows": 10, "num_output_tokens": tokens}
        for kind, tokens in (("user", 1000), ("item", 500))
    }
    manifest = {
        "settings": {"model": {"path": settings.model.path}},
        "summary": {"tokens_per_sec": 75.0, "kinds": kinds},
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    estimate = dry_run(settings).estimate
    assert (estimate.num_output_tokens, estimate.seconds, estimate.basis) == (300, 4.0, "as in run earlier")
    sample = settings.model_copy(update={"limit": 1})
    estimate = dry_run(sample).estimate
    assert (estimate.num_output_tokens, estimate.num_output_tokens_of_all) == (150, 300)
    assert "With limit=all it would be about 300 tokens and 0:04." in shown(sample)
    assert "limit=all" not in shown(settings)
    for broken in ("{", "[]", json.dumps(manifest | {"summary": {}})):
        (run / "manifest.json").write_text(broken)
        assert "no run of this model yet" in dry_run(settings).estimate.basis


def test_the_estimate_knows_max_tokens(overrides):
    """Texts of an earlier run that were cut at 192 tokens are shorter or longer with another bound."""
    settings = load_settings("generate", [*overrides, "knowledge.item.max_tokens=192"])
    run = Path(settings.paths.data) / "movielens" / "runs" / "earlier"
    run.mkdir(parents=True)
    kind = {"num_rows": 10, "num_output_tokens": 1920, "finish_reasons": {"length": 10}}
    summary = {"tokens_per_sec": 75.0, "kinds": {"item": kind, "user": kind}}
    recorded = {"settings": settings.model_dump(mode="json"), "summary": summary}
    (run / "manifest.json").write_text(json.dumps(recorded))
    for max_tokens, expected in ((48, 2 * 48), (192, 2 * 192), (256, 2 * 256)):
        now = load_settings("generate", [*overrides, f"knowledge.item.max_tokens={max_tokens}"])
        of_users = 2 * 192
        assert dry_run(now).estimate.num_output_tokens == expected + of_users, max_tokens


@pytest.mark.parametrize(
    ("words", "num_texts"),
    [
        (["acceptance=strict"], 1),
        (["acceptance=relaxed"], 2),
        (["acceptance=strict", "model.sampling.temperature=0.5"], 3),
    ],
)
def test_equal_prompts_are_counted_and_generated_once(overrides, words, num_texts):
    """Three films, two of them of one group, and nothing in the prompt tells them apart."""
    templates = [
        "knowledge.item.template=About a film.",
        "knowledge.user.template={{ history | length }} films.",
    ]
    settings = load_settings("generate", [*overrides, *templates, *words])
    movies = Path(settings.dataset.raw) / "movies.csv"
    movies.write_text(movies.read_text() + "3,Dusk,Drama\n")
    result = dry_run(settings)
    lengths = result.lengths["item"]
    assert (lengths.num_prompts, lengths.num_distinct, lengths.num_texts) == (3, 1, num_texts)
    user, item = settings.knowledge.user.max_tokens, settings.knowledge.item.max_tokens
    assert result.estimate.num_output_tokens == 2 * user + num_texts * item
    text = shown(settings)
    assert "3 item prompts, 1 of them distinct" in text and "user prompts" not in text
    assert ("each is generated once" in text) is (num_texts == 1)
    assert (f"about {num_texts} texts are generated" in text) is (num_texts > 1)


def test_groups_and_prompts_see_what_a_run_would_let_them_see(settings, monkeypatch):
    cutoff = datetime.fromtimestamp(3, UTC)
    sizes = []
    group_entities = road.group_entities
    monkeypatch.setattr(
        road, "group_entities", lambda tables, dataset: sizes.append(tables.interactions.num_rows) or
        group_entities(tables, dataset)
    )  # fmt: skip
    dry_run(settings.model_copy(update={"history_cutoff": cutoff}))
    assert sizes == [2]
    unknown = {"kind": "user", "group": "nobody", "top_k": 1, "min_prob": 0.0}
    acceptance = settings.acceptance.model_copy(update={"overrides": [AcceptanceOverrideSettings(**unknown)]})
    with pytest.raises(ConfigError, match="nobody"):
        dry_run(settings.model_copy(update={"acceptance": acceptance}))


@pytest.mark.parametrize("wrong", ["cluster.num_workers=999", "model.max_model_len=99999"])
@pytest.mark.parametrize("is_dry", ["true", "false"])
def test_what_cannot_run_is_refused_before_anything_is_written(overrides, tmp_path, capsys, wrong, is_dry):
    assert main([*overrides, wrong, f"dry_run={is_dry}"]) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_sample_beyond_the_end_is_refused_as_in_a_run(settings):
    with pytest.raises(DataError, match="offset=5"):
        dry_run(settings.model_copy(update={"offset": 5, "limit": 1}))
