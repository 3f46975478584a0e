"""Acceptance overrides on the command line."""

import pytest

from jobs.config import load_settings
from pipeline.errors import ConfigError


def test_overrides_are_read():
    users, dramas = "{kind: user, top_k: 1}", "{kind: item, group: drama, top_k: 3, min_prob: 0.05}"
    settings = load_settings(
        "generate",
        [f"acceptance.overrides=[{users}, {dramas}]"],
    )
    assert settings.acceptance.rule_for("user", "any").label == "strict"
    assert settings.acceptance.rule_for("item", "drama").label == "relaxed(k=3,p=0.05)"
    assert settings.acceptance.rule_for("item", "war").label == "relaxed(k=2,p=0.1)"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("[{kind: film, top_k: 1}]", ["acceptance.overrides[0].kind=film", "user", "item"]),
        ("[{top_k: 1}]", ["acceptance.overrides[0].kind: missing"]),
        ("[{kind: user, top_k: 0}]", ["acceptance.overrides[0].top_k=0", "1"]),
        ("[{kind: user, min_prob: 2}]", ["acceptance.overrides[0].min_prob=2", "1"]),
        ("[{kind: user, topk: 1}]", ["acceptance.overrides[0].topk: unknown key", "top_k"]),
        ("[{kind: user}]", ["acceptance.overrides", "top_k, min_prob or both"]),
    ],
)
def test_a_wrong_override_is_named(override, words):
    with pytest.raises(ConfigError) as caught:
        load_settings("generate", [f"acceptance.overrides={override}"])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_strict_stays_strict():
    with pytest.raises(
        ConfigError, match=r"acceptance.overrides\[0\].top_k must be 1 with acceptance=strict"
    ):
        load_settings("generate", ["acceptance=strict", "acceptance.overrides=[{kind: user, top_k: 2}]"])


def test_sampling_and_a_relaxed_override_exclude_each_other():
    overrides = ["acceptance.top_k=1", "acceptance.overrides=[{kind: user, top_k: 2}]"]
    with pytest.raises(ConfigError, match="has an effect on greedy decoding only"):
        load_settings("generate", [*overrides, "model.sampling.temperature=0.5"])
