from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.fingerprint import run_fingerprint, text_fingerprint
from pipeline.models.folder import folder_revision
from pipeline.settings import RunSettings

PROMPT = {"template": "{{ item.name }}", "max_tokens": 256}


def settings_with(**changes: Any) -> RunSettings:
    """Settings of a run; `changes` are dotted keys with `__` for the dot."""
    values: dict[str, Any] = {
        "dataset": {
            "name": "ml", "reader": "movielens", "item_word": "movie", "min_rating": 1, "max_rating": 5,
            "item_groups": {"groups": {}}, "user_groups": {"num_groups": 2, "num_factors": 2},
        },
        "knowledge": {"name": "kar", "max_history": 20, "user": dict(PROMPT), "item": dict(PROMPT)},
        "model": {"name": "smol", "path": "hub/smol", "max_model_len": 2048, "sampling": {}},
        "engine": {"max_num_seqs": 32, "enforce_eager": True},
        "drafter": {"name": "laser", "max_draft_tokens": 8},
        "acceptance": {"name": "relaxed", "top_k": 2, "min_prob": 0.1},
        "plan": {"shard_size": 64},
        "cluster": {"num_workers": 1},
        "paths": {"data": "data"},
        "limit": 200,
    }  # fmt: skip
    for key, value in changes.items():
        *path, last = key.split("__")
        target = values
        for part in path:
            target = target[part]
        target[last] = value
    return RunSettings.model_validate(values)


STRICT = {"acceptance": {"name": "strict", "top_k": 1, "min_prob": 0.0}}


def run(revision="r1", tokenizer_hash="t1", datastore="d1", **changes) -> str:
    return run_fingerprint(settings_with(**changes), revision, tokenizer_hash, datastore)


def text(revision="r1", **changes) -> str:
    settings = settings_with(**changes)
    return text_fingerprint(settings.model, revision, settings.knowledge, settings.acceptance)


CHANGES_TEXT = [
    {"model__path": "hub/other"},
    {"model__name": "other"},
    {"model__dtype": "float32"},
    {"model__chat_template_args": {"enable_thinking": False}},
    {"model__sampling__temperature": 0.5},
    {"model__sampling__repetition_penalty": 1.1},
    {"model__sampling__repetition_detection": {"max_pattern_size": 8, "min_count": 4}},
    {"knowledge__user__template": "{{ history }}"},
    {"knowledge__item__max_tokens": 128},
    {"knowledge__item__system": "Be brief."},
    {"knowledge__max_history": 10},
    {"knowledge__user__json_output": {"keys": ["a"]}},
    {"acceptance__top_k": 3},
    {"acceptance__min_prob": 0.2},
    STRICT,
]


@pytest.mark.parametrize("changes", CHANGES_TEXT, ids=str)
def test_what_changes_the_text_changes_both(changes):
    assert text(**changes) != text()
    assert run(**changes) != run()


@pytest.mark.parametrize(
    "changes",
    [
        {"drafter__name": "suffix"},
        {"drafter__name": "none"},
        {"drafter__max_draft_tokens": 4},
        {"history_cutoff": datetime(2000, 1, 1, tzinfo=UTC)},
        {"dataset__item_word": "film"},
        {"tokenizer_hash": "t2"},
        {"datastore": "d2"},
        {"datastore": None},
    ],
    ids=str,
)
def test_what_steers_one_run_changes_its_fingerprint(changes):
    assert run(**changes) != run()


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster__num_workers": 8},
        {"cluster__address": "head:6379"},
        {"engine__max_num_seqs": 256},
        {"engine__tensor_parallel_size": 2},
        {"model__tensor_parallel_size": 2},
        {"engine__gpu_memory_utilization": 0.5},
        {"paths__data": "elsewhere"},
        {"dataset__raw": "/data/ml-100k"},
        {"plan__shard_size": 8},
        {"limit": "all"},
        {"run_id": "tonight"},
        {"max_failed_fraction": 0.5},
        {"knowledge__factors": {"other": "price"}},  # seen in the prompt
        {"model__max_model_len": 1024},  # seen in the prompt
        {"model__revision": "main"},  # the revision that was found counts, not how it was asked for
    ],
    ids=str,
)
def test_what_does_not_change_the_text_is_left_out(changes):
    assert run(**changes) == run()
    assert text(**changes) == text()


def test_keys_and_constraint_of_a_json_answer_count():
    answers = ({"keys": ["a"]}, {"keys": ["b"]}, {"keys": ["a"], "constrained": True})
    assert len({text(knowledge__item__json_output=answer) for answer in answers}) == 3


def test_the_revision_that_was_found_counts():
    assert text(revision="r2") != text()
    assert run(revision="r2") != run()


def test_a_models_folder_may_be_moved(tmp_path):
    """Its revision is a hash of its content; a hub's is a commit, which says nothing without the id."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    here, there = (
        {"revision": folder_revision(tmp_path / name), "model__path": str(tmp_path / name)}
        for name in ("here", "there")
    )
    assert text(**here) == text(**there) and run(**here) == run(**there)
    (tmp_path / "there" / "config.json").write_text('{"other": 1}')
    assert text(**there | {"revision": folder_revision(tmp_path / "there")}) != text(**here)


def test_strict_greedy_output_does_not_depend_on_the_drafter():
    strict = run(**STRICT)
    assert run(**STRICT, drafter__name="none") == strict
    assert run(**STRICT, drafter__max_draft_tokens=2) == strict
    assert run(**STRICT, datastore="d2") == strict
    relaxed_to_nothing = {"name": "relaxed", "top_k": 1, "min_prob": 0.5}
    assert run(acceptance=relaxed_to_nothing) == strict


def test_sampled_output_depends_on_the_drafter_even_when_strict():
    sampled = {**STRICT, "model__sampling__temperature": 0.7}
    assert run(**sampled, drafter__name="ngram") != run(**sampled)


def test_only_the_retrieval_drafter_reads_the_datastore():
    assert run(drafter__name="ngram", datastore="d2") == run(drafter__name="ngram", datastore="d1")


def test_the_same_moment_in_another_zone_is_the_same_cutoff():
    moments = ("2000-01-01T12:00:00", "2000-01-01T12:00:00+00:00", "2000-01-01T14:00:00+02:00")
    assert len({run(history_cutoff=datetime.fromisoformat(moment)) for moment in moments}) == 1


def test_the_text_fingerprint_knows_nothing_of_cutoff_and_drafter():
    assert text(history_cutoff=datetime(2000, 1, 1, tzinfo=UTC), drafter__name="none") == text()


def test_is_short_hex_and_stable_across_processes():
    assert len(run()) == len(text()) == 16
    int(run(), 16)
    # A new value here means that every run in progress starts over: change it knowingly.
    assert text() == "5bf6ae313b74d3b6"
