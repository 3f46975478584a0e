import numpy as np
import torch

from drafters.acceptance import AcceptanceRule
from drafters.batch_rules import BatchRules, MismatchShares
from drafters.request_decoding import VerifiedDraft

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
    positions = rules.positions([2, 1, 1], CPU)
    assert positions.top_k.tolist() == [2, 2, 1, 3]
    assert positions.first.tolist() == [0, 0, 2, 3]
    assert positions.last.tolist() == [1, 1, 2, 3]
    rules.positions([0, 0, 1], CPU)
    assert asked == ["a", "b", "c"]
    rules.forget("b")
    rules.positions([1, 1, 1], CPU)
    assert asked == ["a", "b", "c", "b"]


def test_strict_batches_need_no_rule():
    rules, _ = batch(a=AcceptanceRule(), b=AcceptanceRule(1, 0.5))
    assert rules.positions([3, 2], CPU) is None


def test_a_step_tells_what_was_accepted_and_relaxed():
    rules, _ = batch(a=RELAXED, b=RELAXED, c=RELAXED)
    rules.verified, rules.relaxed = [3, 0, 2], torch.tensor([False, True, True, True, False])
    found = rules.take_step([3, 1, 1])
    assert [(d.num_draft_tokens, d.relaxed.tolist()) for d in found] == [(3, [False, True]), (0, []), (2, [])]
    assert [d.num_draft_tokens for d in rules.take_step([1, 1, 1])] == [0, 0, 0]  # nothing was verified since


def judged(num_draft_tokens, *relaxed):
    """(tokens written, draft) of a step that accepted as many draft tokens as there are flags."""
    return len(relaxed) + 1, VerifiedDraft(num_draft_tokens, np.array(relaxed, np.bool_))


def test_shares_follow_what_each_rule_takes():
    shares, other = MismatchShares(), AcceptanceRule(3, 0.2)
    for _ in range(400):
        shares.note(RELAXED, *judged(4, False, True))  # one taken, the one after it refused
        shares.note(other, *judged(4, False))
    assert abs(shares.share(RELAXED) - 0.5) < 0.01
    assert shares.share(other) == 0.0


def test_drafts_without_a_mismatch_teach_nothing():
    shares = MismatchShares()
    shares.note(RELAXED, *judged(2, True, True))
    learned = shares.share(RELAXED)
    assert 0.0 < learned < 0.1
    shares.note(RELAXED, *judged(2, False, False))
    shares.note(RELAXED, *judged(0))
    assert shares.share(RELAXED) == learned


def test_a_strict_rule_takes_no_mismatch_whatever_others_do():
    shares = MismatchShares()
    for _ in range(50):
        shares.note(RELAXED, *judged(1, True))
        shares.note(AcceptanceRule(), *judged(1))
    assert shares.share(RELAXED) > 0.5
    assert shares.share(AcceptanceRule()) == 0.0
