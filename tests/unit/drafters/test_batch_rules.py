import torch

from drafters.acceptance import AcceptanceRule
from drafters.batch_rules import BatchRules

CPU = torch.device("cpu")
RELAXED = AcceptanceRule(2, 0.1)


def batch(**rules):
    asked = []

    def rule_of(request_id):
        asked.append(request_id)
        return rules[request_id]

    return BatchRules(rule_of, lambda: list(rules)), asked


def test_every_position_has_its_requests_rule():
    rules, asked = batch(a=RELAXED, b=AcceptanceRule(), c=AcceptanceRule(3, 0.2))
    positions = rules.positions([2, 1, 1], None, CPU)
    assert positions.top_k.tolist() == [2, 2, 1, 3]
    assert positions.first.tolist() == [0, 0, 2, 3]
    assert positions.last.tolist() == [1, 1, 2, 3]
    rules.positions([0, 0, 1], None, CPU)
    assert asked == ["a", "b", "c"]
    rules.forget("b")
    rules.positions([1, 1, 1], None, CPU)
    assert asked == ["a", "b", "c", "b"]


def test_a_sampled_request_is_strict_whatever_it_asked_for():
    rules, _ = batch(a=RELAXED, b=RELAXED)
    assert rules.positions([1, 1], torch.tensor([0.0, 0.7]), CPU).top_k.tolist() == [2, 1]
    assert rules.positions([1, 1], torch.tensor([0.5, 0.7]), CPU) is None


def test_strict_batches_need_no_rule():
    rules, _ = batch(a=AcceptanceRule(), b=AcceptanceRule(1, 0.5))
    assert rules.positions([3, 2], None, CPU) is None


def test_a_step_tells_what_was_accepted_and_relaxed():
    rules, _ = batch(a=RELAXED, b=RELAXED, c=RELAXED)
    rules.verified, rules.relaxed = [3, 0, 2], torch.tensor([False, True, True, True, False])
    found = rules.take_step([3, 1, 1])
    assert [(d.num_draft_tokens, d.relaxed.tolist()) for d in found] == [(3, [False, True]), (0, []), (2, [])]
    assert [d.num_draft_tokens for d in rules.take_step([1, 1, 1])] == [0, 0, 0]  # nothing was verified since
