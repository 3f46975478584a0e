"""The acceptance rules of the requests in the batch, and what they made of the drafts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from drafters.acceptance import AcceptanceRule, PositionRules
from drafters.request_decoding import VerifiedDraft


@dataclass
class BatchRules:
    """Between the sampler, which verifies, and the proposer, which learns what was accepted."""

    rule_of: Callable[[str], AcceptanceRule]  # a request's rule, asked for once
    request_ids: Callable[[], Sequence[str]]  # of the batch's rows
    verified: list[int] | None = None  # draft tokens of each row in the last step; None: none anywhere
    relaxed: torch.Tensor | None = None  # bool [sum(verified)]
    _rules: dict[str, AcceptanceRule] = field(default_factory=dict)

    def forget(self, request_id: str) -> None:
        """Drop what is remembered of `request_id`."""
        self._rules.pop(request_id, None)

    def positions(self, num_draft_tokens: Sequence[int], device: torch.device) -> PositionRules | None:
        """The rule at every drafted position; None if all are strict."""
        rules = self.of_rows(len(num_draft_tokens))
        if all(rule.is_strict for rule in rules):
            return None
        return PositionRules.of(rules, num_draft_tokens, device)

    def of_rows(self, num_rows: int) -> list[AcceptanceRule]:
        """The rules of the batch's first `num_rows`."""
        return [self.rule(request_id) for request_id in self.request_ids()[:num_rows]]

    def take_step(self, num_sampled: Sequence[int]) -> list[VerifiedDraft]:
        """What became of each row's draft in the step that just ended."""
        verified, relaxed = self.verified or [0] * len(num_sampled), self.relaxed
        self.verified = self.relaxed = None
        flags = np.zeros(sum(verified), np.bool_) if relaxed is None else relaxed.cpu().numpy()
        drafts = []
        first = 0
        for drafted, sampled in zip(verified, num_sampled, strict=True):
            num_accepted = min(max(sampled - 1, 0), drafted)
            drafts.append(VerifiedDraft(drafted, flags[first : first + num_accepted]))
            first += drafted
        return drafts

    def rule(self, request_id: str) -> AcceptanceRule:
        """The rule of `request_id`."""
        rule = self._rules.get(request_id)
        if rule is None:
            rule = self._rules[request_id] = self.rule_of(request_id)
        return rule


class MismatchShares:
    """For each rule, how often it takes a draft token that is not the argmax; never, for a strict one."""

    MEMORY = 0.02  # rate at which a share follows the latest mismatches

    def __init__(self) -> None:
        self._shares: dict[AcceptanceRule, float] = {}

    def share(self, rule: AcceptanceRule) -> float:
        """The estimate for `rule`; 0 until it has judged a mismatch."""
        return self._shares.get(rule, 0.0)

    def note(self, rule: AcceptanceRule, num_sampled: int, draft: VerifiedDraft) -> None:
        """Learn from a draft that `rule` judged in a step that wrote `num_sampled` tokens."""
        num_relaxed = int(draft.relaxed.sum())
        num_mismatches = num_relaxed + int(0 < num_sampled <= draft.num_draft_tokens)
        if rule.is_strict or not num_mismatches:
            return
        rate = 1.0 - (1.0 - self.MEMORY) ** num_mismatches
        share = self.share(rule)
        self._shares[rule] = share + rate * (num_relaxed / num_mismatches - share)
