"""One acceptance rule for all texts, others for a kind or a group."""

import pyarrow as pa
import pytest

from pipeline.acceptance_settings import AcceptanceSettings
from pipeline.errors import ConfigError
from pipeline.fingerprint import drafts_change_text, text_fingerprint
from pipeline.groups import reject_unknown_groups
from pipeline.schemas import GROUPS
from pipeline.settings import SamplingSettings
from tests.generation import run_settings


def acceptance(*overrides, **rule):
    base = {"name": "relaxed", "top_k": 2, "min_prob": 0.1}
    return AcceptanceSettings.model_validate(base | rule | {"overrides": list(overrides)})


RULES = acceptance(
    {"kind": "user", "top_k": 1},
    {"kind": "item", "min_prob": 0.2},
    {"kind": "item", "group": "drama", "top_k": 3, "min_prob": 0.05},
)


@pytest.mark.parametrize(
    ("kind", "group", "label"),
    [
        ("user", "cluster-3", "strict"),
        ("item", "comedy", "relaxed(k=2,p=0.2)"),
        ("item", "drama", "relaxed(k=3,p=0.05)"),
        ("user", "drama", "strict"),
    ],
)
def test_the_last_override_that_fits_decides(kind, group, label):
    assert RULES.rule_for(kind, group).label == label
    settings = run_settings().model_copy(update={"acceptance": RULES})
    assert settings.acceptance_label_of(kind, group) == label


def test_without_overrides_all_have_the_rule():
    assert acceptance().rule_for("item", "drama").label == acceptance().label == "relaxed(k=2,p=0.1)"


def test_only_laser_is_ever_relaxed():
    drafter = run_settings().drafter.model_copy(update={"name": "ngram"})
    settings = run_settings().model_copy(update={"acceptance": RULES, "drafter": drafter})
    assert settings.acceptance_label_of("item", "drama") == "strict"


def fingerprint(rule):
    settings = run_settings()
    return text_fingerprint(settings.model, "1", settings.knowledge, rule)


def test_overrides_are_part_of_the_fingerprint():
    assert fingerprint(acceptance({"kind": "user", "top_k": 1})) != fingerprint(acceptance())
    assert fingerprint(RULES) == fingerprint(RULES.model_copy())


def test_a_relaxed_override_makes_drafts_matter():
    rule = acceptance({"kind": "item", "top_k": 3}, top_k=1)
    assert rule.is_relaxed
    assert drafts_change_text(rule, SamplingSettings())
    assert not drafts_change_text(acceptance(top_k=1), SamplingSettings())


def test_a_group_that_nobody_is_in_is_refused_by_name():
    groups = pa.Table.from_pylist(
        [
            {"entity_id": "1", "kind": "item", "group": "drama"},
            {"entity_id": "1", "kind": "user", "group": "u0"},
        ],
        schema=GROUPS,
    )
    reject_unknown_groups(RULES, groups)
    with pytest.raises(ConfigError, match=r"acceptance.overrides\[0\].group=dramma: .*there are drama$"):
        reject_unknown_groups(acceptance({"kind": "item", "group": "dramma", "top_k": 1}), groups)


def test_options_are_named_and_change_the_text_only_where_the_rule_is_relaxed():
    guarded = acceptance().model_copy(update={"max_relaxed_run": 1, "deferred_tokens": 3})
    assert guarded.rule_for("item", "drama").label == "relaxed(k=2,p=0.1,run=1,deferred=3)"
    assert fingerprint(guarded) != fingerprint(acceptance())
    strict = acceptance().model_copy(update={"name": "strict", "top_k": 1})
    guarded_strict = strict.model_copy(update={"max_relaxed_run": 1})
    assert guarded_strict.label == "strict"
    assert fingerprint(guarded_strict) == fingerprint(strict)
