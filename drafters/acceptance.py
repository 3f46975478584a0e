"""The acceptance rule: which draft tokens the verification takes. Pure functions over logits."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AcceptanceRule:
    """Accept a draft token that is the argmax, or among the top `top_k` with probability above `min_prob`.

    LASER (Xi et al., SIGIR 2025), relaxed verification; the paper uses top_k=2, min_prob=0.1.
    `top_k=1` is the strict rule: the output is that of greedy decoding.
    """

    top_k: int = 1
    min_prob: float = 0.0

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if not 0.0 <= self.min_prob <= 1.0:
            raise ValueError(f"min_prob must lie in [0, 1], not {self.min_prob}")

    @property
    def is_strict(self) -> bool:
        """Whether only the argmax is accepted."""
        return self.top_k == 1


def relaxed_matches(
    logits: torch.Tensor, draft_token_ids: torch.Tensor, top_k: torch.Tensor, min_prob: torch.Tensor
) -> torch.Tensor:
    """Which draft tokens are acceptable though they are not the argmax.

    Args:
        logits: float [n, vocab], after penalties and masks; row i is the model's view of position i.
        draft_token_ids: int [n].
        top_k: int [n] and min_prob: float [n]: the rule of each position's request.

    Returns:
        bool [n]. The rank of a token is the number of tokens with a higher logit; ties share a rank, so a
        token that ties with the argmax has rank 0 and, unless it is the argmax, counts as relaxed.
    """
    draft_logits = logits.gather(1, draft_token_ids.long().unsqueeze(1))
    rank = (logits > draft_logits).sum(dim=1)
    log_prob = draft_logits.squeeze(1) - torch.logsumexp(logits, dim=1)
    is_argmax = logits.argmax(dim=1) == draft_token_ids
    return ~is_argmax & (top_k > 1) & (rank < top_k) & (log_prob > torch.log(min_prob))


def raise_above_argmax(
    logits: torch.Tensor, draft_token_ids: torch.Tensor, accepted: torch.Tensor
) -> torch.Tensor:
    """Make each accepted draft token its row's argmax, in place, so that a greedy verification takes it."""
    rows = accepted.nonzero(as_tuple=True)[0]
    tokens = draft_token_ids[rows].long()
    logits[rows, tokens] = logits[rows].amax(dim=1) + 1.0
    return logits
