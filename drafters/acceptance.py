"""The acceptance rule: which draft tokens the verification takes. Pure functions over logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AcceptanceRule:
    """Accept a draft token that is the argmax, or among the top `top_k` with probability above `min_prob`.

    LASER (Xi et al., SIGIR 2025), relaxed verification; the paper uses top_k=2, min_prob=0.1.
    `top_k=1` is the strict rule: the output is that of greedy decoding. Two options narrow the relaxed
    rule; 0 leaves them off. `max_relaxed_run`: so many tokens in a row may differ from the argmax.
    `deferred_tokens`: a token other than the argmax is accepted only if so many draft tokens behind it
    are the model's choice given that token (the deferred check of FLy, training-free loose speculative
    decoding); a draft that ends earlier does not confirm it. `stop_token_ids`: tokens that end the
    request's text. Where a text ends is the model's choice: nothing is relaxed to such a token, nor to any
    other where the model would end.
    """

    top_k: int = 1
    min_prob: float = 0.0
    max_relaxed_run: int = 0
    deferred_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if not 0.0 <= self.min_prob <= 1.0:
            raise ValueError(f"min_prob must lie in [0, 1], not {self.min_prob}")
        for name in ("max_relaxed_run", "deferred_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")

    @property
    def is_strict(self) -> bool:
        """Whether only the argmax is accepted."""
        return self.top_k == 1


@dataclass(frozen=True)
class PositionRules:
    """The rule at each of n drafted positions, and where its request's draft begins and ends among them."""

    top_k: torch.Tensor  # int [n]
    min_prob: torch.Tensor  # float [n]
    max_relaxed_run: torch.Tensor  # int [n]
    deferred_tokens: torch.Tensor  # int [n]
    stop_token_ids: torch.Tensor  # int [n, largest number of them], padded with -1
    first: torch.Tensor  # int [n], position of the draft's first token
    last: torch.Tensor  # int [n]

    @classmethod
    def of(
        cls, rules: Sequence[AcceptanceRule], num_draft_tokens: Sequence[int], device: torch.device
    ) -> "PositionRules":
        """From one rule and one draft length for each request in the batch."""
        repeats = torch.tensor(num_draft_tokens)
        ends = repeats.cumsum(0)
        columns = [
            torch.tensor([rule.top_k for rule in rules]),
            torch.tensor([rule.min_prob for rule in rules]),
            torch.tensor([rule.max_relaxed_run for rule in rules]),
            torch.tensor([rule.deferred_tokens for rule in rules]),
            _padded([rule.stop_token_ids for rule in rules]),
            ends - repeats,
            ends - 1,
        ]
        return cls(*(c.repeat_interleave(repeats, dim=0).to(device, non_blocking=True) for c in columns))


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], dtype=torch.int64)


def relaxed_matches(
    logits: torch.Tensor, draft_token_ids: torch.Tensor, rules: PositionRules
) -> torch.Tensor:
    """Which draft tokens are acceptable though they are not the argmax.

    Args:
        logits: float [n, vocab], after penalties and masks; row i is the model's view of position i,
            given the draft tokens before it.
        draft_token_ids: int [n], the drafts of all requests one after the other. Negative ids are
            placeholders (vLLM's scheduler pads with -1): they are not looked up and never acceptable.
        rules: the rule at each position.

    Returns:
        bool [n]. The rank of a token is the number of tokens with a higher logit; ties share a rank, so a
        token that ties with the argmax has rank 0 and, unless it is the argmax, counts as relaxed.
    """
    choices = logits.argmax(dim=1)
    is_argmax = choices == draft_token_ids
    relaxed = torch.zeros_like(is_argmax)
    # Few positions differ from the argmax, and each pass over the vocabulary costs.
    ends = _is_any(draft_token_ids, rules.stop_token_ids) | _is_any(choices, rules.stop_token_ids)
    is_open = ~is_argmax & ~ends & (draft_token_ids >= 0) & (rules.top_k > 1)
    differing = is_open.nonzero(as_tuple=True)[0]
    relaxed[differing] = _is_likely(
        logits[differing], draft_token_ids[differing], rules.top_k[differing], rules.min_prob[differing]
    )
    confirmed = _confirmed(is_argmax, rules.last, rules.deferred_tokens)
    return _limited(relaxed & confirmed, rules.first, rules.max_relaxed_run)


def _is_any(token_ids: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Whether each of `token_ids` [n] is among those of its row in `of` [n, m]."""
    return (token_ids.unsqueeze(1) == of).any(dim=1)


def _is_likely(
    logits: torch.Tensor, draft_token_ids: torch.Tensor, top_k: torch.Tensor, min_prob: torch.Tensor
) -> torch.Tensor:
    """Whether the token's rank is below `top_k` and its probability above `min_prob`."""
    draft_logits = logits.gather(1, draft_token_ids.long().unsqueeze(1))
    rank = (logits > draft_logits).sum(dim=1)
    log_prob = draft_logits.squeeze(1) - torch.logsumexp(logits, dim=1)
    return (rank < top_k) & (log_prob > torch.log(min_prob))


def _confirmed(is_argmax: torch.Tensor, last: torch.Tensor, num_deferred: torch.Tensor) -> torch.Tensor:
    """Whether the `num_deferred` draft tokens behind each position are all the argmax."""
    num_positions = len(is_argmax)
    position = torch.arange(num_positions, device=is_argmax.device)
    mismatch = torch.where(is_argmax, num_positions, position)
    next_mismatch = mismatch.flip(0).cummin(0).values.flip(0)  # at or behind each position
    behind = torch.cat([next_mismatch[1:], next_mismatch.new_full((1,), num_positions)])
    return torch.minimum(behind, last + 1) - (position + 1) >= num_deferred


def _limited(relaxed: torch.Tensor, first: torch.Tensor, max_run: torch.Tensor) -> torch.Tensor:
    """`relaxed` without what would make more than `max_run` (0: any number) of them in a row.

    A run never crosses steps: each step ends with a token that is the model's own choice.
    """
    position = torch.arange(len(relaxed), device=relaxed.device)
    last_break = torch.where(relaxed, first - 1, position).cummax(0).values
    run = position - torch.maximum(last_break, first - 1)
    return relaxed & ((max_run == 0) | (run <= max_run))


def raise_above_argmax(
    logits: torch.Tensor, draft_token_ids: torch.Tensor, accepted: torch.Tensor
) -> torch.Tensor:
    """Make each accepted draft token its row's argmax, in place, so that a greedy verification takes it."""
    rows = accepted.nonzero(as_tuple=True)[0]
    tokens = draft_token_ids[rows].long()
    logits[rows, tokens] = logits[rows].amax(dim=1) + 1.0
    return logits
