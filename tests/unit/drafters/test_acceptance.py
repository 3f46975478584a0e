import math

import pytest
import torch

from drafters.acceptance import AcceptanceRule, PositionRules, raise_above_argmax, relaxed_matches

PROBS = [0.55, 0.25, 0.15, 0.05]
"""Probability of tokens 0 to 3."""


def matches(logits, drafted, top_k, min_prob):
    """Each row of `logits` is a request with one draft token."""
    rules = [AcceptanceRule(k, p) for k, p in zip(top_k, min_prob, strict=True)]
    positions = PositionRules.of(rules, [1] * len(rules), torch.device("cpu"))
    return relaxed_matches(
        torch.tensor(logits, dtype=torch.float32), torch.tensor(drafted), positions
    ).tolist()


def drafts(rule, *lengths_and_tokens):
    """Drafts of requests under `rule`; token 0 is the argmax, token 1 acceptable, token 3 is not."""
    tokens = [token for draft in lengths_and_tokens for token in draft]
    logits = torch.log(torch.tensor([PROBS] * len(tokens)))
    lengths = [len(draft) for draft in lengths_and_tokens]
    positions = PositionRules.of([rule] * len(lengths), lengths, torch.device("cpu"))
    flags = relaxed_matches(logits, torch.tensor(tokens), positions).tolist()
    return [[flags.pop(0) for _ in draft] for draft in lengths_and_tokens]


def one(probabilities, token, top_k, min_prob):
    return matches([[math.log(p) if p else -math.inf for p in probabilities]], [token], [top_k], [min_prob])[
        0
    ]


@pytest.mark.parametrize(
    ("token", "top_k", "min_prob", "relaxed"),
    [
        (0, 2, 0.1, False),  # the argmax: accepted strictly, so not relaxed
        (1, 2, 0.1, True),  # rank 1 < 2
        (2, 2, 0.1, False),  # rank 2, not < 2
        (2, 3, 0.1, True),
        (3, 4, 0.1, False),  # its rank would do, its probability not
        (3, 4, 0.04, True),
        (1, 2, 0.24, True),
        (1, 2, 0.26, False),  # just below the bound
        (1, 1, 0.0, False),  # strict
        (3, 1, 0.0, False),
        (1, 2, 0.0, True),
        (1, 2, 1.0, False),
    ],
)
def test_rank_and_probability(token, top_k, min_prob, relaxed):
    assert one(PROBS, token, top_k, min_prob) is relaxed


@pytest.mark.parametrize(
    ("probabilities", "token", "top_k", "relaxed"),
    [
        ([0.4, 0.4, 0.2], 0, 2, False),  # the argmax of two equals is the first
        ([0.4, 0.4, 0.2], 1, 2, True),  # ties with the argmax: rank 0
        ([0.4, 0.4, 0.2], 2, 2, False),  # two are above it
        ([0.5, 0.25, 0.25], 2, 2, True),  # ties share a rank
        ([0.4, 0.4, 0.2], 1, 1, False),  # strict: a tie is no argmax
    ],
)
def test_ties(probabilities, token, top_k, relaxed):
    assert one(probabilities, token, top_k, 0.1) is relaxed


def test_probability_is_strictly_above_the_bound_and_masked_tokens_are_never_taken():
    assert matches([[0.0, 0.0, -math.inf]], [1], [2], [0.5]) == [False]
    assert matches([[0.0, 0.0, -math.inf]], [1], [2], [0.49]) == [True]
    assert one([0.75, 0.25, 0.0], 2, 3, 0.0) is False


def test_the_logits_judged_are_those_after_penalties():
    logits = torch.log(torch.tensor([PROBS]))
    penalized = logits.clone()
    penalized[0, 1] -= 2.0  # repeated before: falls to rank 2
    assert matches(logits.tolist(), [1], [2], [0.1]) == [True]
    assert matches(penalized.tolist(), [1], [2], [0.1]) == [False]


def test_every_row_has_its_own_rule_and_a_sampled_request_has_none():
    row = [math.log(p) for p in PROBS]
    assert matches([row] * 4, [1, 1, 2, 1], [2, 1, 3, 2], [0.1, 0.0, 0.1, 0.3]) == [True, False, True, False]


def test_the_sum_of_probabilities_is_over_the_whole_vocabulary():
    wide = [[0.0] * 1000]
    wide[0][1], wide[0][2] = 3.0, 2.9  # far ahead, and still improbable: e^2.9 / 1037
    assert matches(wide, [2], [2], [0.1]) == [False]
    assert matches(wide, [2], [2], [0.01]) == [True]


def test_accepted_tokens_become_the_argmax_and_other_rows_stay():
    logits = torch.log(torch.tensor([PROBS, PROBS, PROBS]))
    before = logits.clone()
    result = raise_above_argmax(logits, torch.tensor([1, 2, 3]), torch.tensor([True, False, True]))
    assert result is logits
    assert logits.argmax(dim=1).tolist() == [1, 0, 3]
    assert torch.equal(logits[1], before[1])
    changed = (logits != before).nonzero().tolist()
    assert changed == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"min_prob": -0.1}, "min_prob must lie in"),
        ({"min_prob": 1.5}, "min_prob must lie in"),
        ({"max_relaxed_run": -1}, "max_relaxed_run must be at least 0"),
        ({"deferred_tokens": -1}, "deferred_tokens must be at least 0"),
    ],
)
def test_impossible_rules_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AcceptanceRule(**fields)


def test_strict_is_the_default():
    assert AcceptanceRule().is_strict
    assert AcceptanceRule(1, 0.5).is_strict
    assert not AcceptanceRule(2, 0.1).is_strict


@pytest.mark.parametrize("rule", [AcceptanceRule(4, 0.0), AcceptanceRule(4, 0.0, stop_token_ids=(2,))])
def test_placeholders_are_never_looked_up_or_taken(rule):
    assert drafts(rule, [1, -1, -1], [-1] * 3, [1]) == [[True, False, False], [False] * 3, [True]]


def test_a_placeholder_confirms_no_token():
    deferred = AcceptanceRule(2, 0.1, deferred_tokens=1)
    assert drafts(deferred, [1, -1], [1, 0, -1]) == [[False, False], [True, False, False]]


def test_a_guard_limits_how_many_tokens_in_a_row_differ_from_the_argmax():
    yes, no = True, False
    assert drafts(AcceptanceRule(2, 0.1), [1, 1, 1, 0, 1]) == [[yes, yes, yes, no, yes]]
    assert drafts(AcceptanceRule(2, 0.1, max_relaxed_run=2), [1, 1, 1, 0, 1]) == [[yes, yes, no, no, yes]]
    guarded = AcceptanceRule(2, 0.1, max_relaxed_run=1)
    assert drafts(guarded, [0, 1], [1, 1], [1], [3, 1]) == [[no, yes], [yes, no], [yes], [no, yes]]


def test_a_deferred_check_wants_the_tokens_behind_to_be_the_models_choice():
    yes, no = True, False
    deferred = AcceptanceRule(2, 0.1, deferred_tokens=2)
    assert drafts(deferred, [1, 0, 0], [1, 0], [0]) == [[yes, no, no], [no, no], [no]]
    assert drafts(deferred, [1, 0, 1, 0, 0], [0, 0]) == [[no, no, yes, no, no], [no, no]]
    assert drafts(deferred, [1, 0, 0, 3], [3, 0, 0]) == [[yes, no, no, no], [no, no, no]]


def test_a_stop_token_is_taken_only_as_the_argmax():
    yes, no = True, False
    assert drafts(AcceptanceRule(3, 0.1, stop_token_ids=(2,)), [0, 1, 2]) == [[no, yes, no]]
    ending = AcceptanceRule(3, 0.1, stop_token_ids=(1,))
    assert drafts(ending, [0, 1, 2], [1, 2]) == [[no, no, yes], [no, yes]]


def test_where_the_model_would_end_nothing_is_relaxed():
    """Token 0 is the argmax everywhere."""
    assert drafts(AcceptanceRule(3, 0.1, stop_token_ids=(0,)), [0, 1, 2]) == [[False, False, False]]


def test_every_request_has_its_own_stop_tokens():
    rules = [AcceptanceRule(3, 0.1, stop_token_ids=ids) for ids in ((1, 7), (), (2,))]
    positions = PositionRules.of(rules, [2, 2, 2], torch.device("cpu"))
    logits = torch.log(torch.tensor([PROBS] * 6))
    flags = relaxed_matches(logits, torch.tensor([1, 2] * 3), positions).tolist()
    assert flags == [False, True, True, True, True, False]


def test_rules_differ_by_request():
    rules = [AcceptanceRule(2, 0.1, deferred_tokens=1), AcceptanceRule(), AcceptanceRule(2, 0.1)]
    positions = PositionRules.of(rules, [2, 0, 1], torch.device("cpu"))
    logits = torch.log(torch.tensor([PROBS] * 3))
    assert relaxed_matches(logits, torch.tensor([1, 1, 1]), positions).tolist() == [False, False, True]
