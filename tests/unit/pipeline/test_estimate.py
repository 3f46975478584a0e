import json
import os
from pathlib import Path

import pytest

from jobs.config import load_settings
from pipeline.estimate import estimate_time

TEN = {"user": 10, "item": 10}
MAX_192 = ["knowledge.user.max_tokens=192", "knowledge.item.max_tokens=192"]


def settings_of(tmp_path, *overrides):
    common = [f"paths.data={tmp_path}", "model.path=/models/toy", "drafter=laser", "acceptance=strict"]
    return load_settings("generate", [*common, *overrides])


def finished_run(settings, name: str, rate=100.0, tokens=1920, stopped=0, cut=10, begun=1, **of_kind) -> None:
    """A run of 10 users and 10 items, of which `cut` each have as many tokens as allowed."""
    reasons = {"stop": stopped, "length": cut}
    kind = {"num_rows": 10, "num_output_tokens": tokens, "finish_reasons": reasons} | of_kind
    manifest = Path(settings.paths.data) / settings.dataset.name / "runs" / name / "manifest.json"
    manifest.parent.mkdir(parents=True)
    summary = {"tokens_per_sec": rate, "kinds": {"user": kind, "item": kind}}
    manifest.write_text(
        json.dumps({"settings": settings.model_dump(mode="json"), "summary": summary}), encoding="utf-8"
    )
    os.utime(manifest, (begun, begun))


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [(192, 10 * 192), (48, 10 * 48), (256, 10 * 256)],
)
def test_texts_that_were_cut_are_as_long_as_max_tokens_now_allows(tmp_path, max_tokens, expected):
    finished_run(settings_of(tmp_path, *MAX_192), "earlier")
    now = settings_of(tmp_path, MAX_192[0], f"knowledge.item.max_tokens={max_tokens}")
    estimate = estimate_time(now, {"user": 0, "item": 10}, TEN)
    assert estimate.num_output_tokens == expected
    assert estimate.tokens_per_sec == 100.0
    note = "" if max_tokens == 192 else f", items with max_tokens={max_tokens}, not 192"
    assert estimate.basis == f"as in run earlier{note}"


@pytest.mark.parametrize(("max_tokens", "expected"), [(48, 48), (192, (6 * 60 + 4 * 192) / 10), (256, 138.4)])
def test_texts_that_ended_by_themselves_grow_no_longer(tmp_path, max_tokens, expected):
    """Six texts of 60 tokens, four that were cut at 192."""
    finished_run(settings_of(tmp_path, *MAX_192), "earlier", tokens=6 * 60 + 4 * 192, stopped=6, cut=4)
    now = settings_of(tmp_path, *(line.replace("192", str(max_tokens)) for line in MAX_192))
    assert estimate_time(now, TEN, TEN).num_output_tokens == round(20 * expected)


def test_shared_texts_do_not_shorten_the_mean(tmp_path):
    finished_run(settings_of(tmp_path, *MAX_192), "earlier", tokens=2 * 192, num_shared=8)
    assert estimate_time(settings_of(tmp_path, *MAX_192), TEN, TEN).num_output_tokens == 20 * 192


@pytest.mark.parametrize(
    ("changed", "section"),
    [
        ("drafter=none", "drafter"),
        ("acceptance=relaxed", "acceptance"),
        ("model.dtype=float32", "model"),
        ("engine.max_num_seqs=3", "engine"),
        ("cluster.num_workers=7", "cluster"),
        ("knowledge.max_history=1", "knowledge"),
    ],
)
def test_a_run_with_other_settings_is_named_as_such_and_the_most_similar_one_is_taken(
    tmp_path, changed, section
):
    finished_run(settings_of(tmp_path), "newer", rate=900.0, begun=3)
    now = settings_of(tmp_path, changed)
    found = estimate_time(now, TEN, TEN)
    assert (found.tokens_per_sec, found.basis) == (
        900.0,
        f"as in run newer, though with other settings of {section}",
    )
    finished_run(now, "older", rate=50.0, begun=2)
    found = estimate_time(now, TEN, TEN)
    assert (found.tokens_per_sec, found.basis) == (50.0, "as in run older")


def test_another_prompt_says_nothing_of_how_long_its_texts_are(tmp_path):
    finished_run(settings_of(tmp_path, *MAX_192), "earlier", tokens=500, stopped=10, cut=0)
    now = settings_of(tmp_path, *MAX_192, "knowledge.item.template=Say something of {{ item.name }}.")
    estimate = estimate_time(now, TEN, TEN)
    assert estimate.num_output_tokens == 500 + 10 * 192
    other = "though with other settings of knowledge"
    assert estimate.basis == f"as in run earlier, {other}, every item's text as long as allowed"


def test_what_changes_neither_speed_nor_length_is_no_difference(tmp_path):
    finished_run(settings_of(tmp_path, "limit=4", "run_id=a", "cluster.stall_timeout_sec=5"), "earlier")
    assert estimate_time(settings_of(tmp_path), TEN, TEN).basis == "as in run earlier"


def test_a_run_of_another_model_is_not_asked(tmp_path):
    finished_run(settings_of(tmp_path, "model.path=/models/other"), "earlier")
    assert "no run of this model yet" in estimate_time(settings_of(tmp_path), TEN, TEN).basis
