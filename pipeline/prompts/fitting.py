"""Shortens what prompts show until they fit, in few batched rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.prompts.chat import EncodedPrompt

Write = Callable[[list[tuple[int, int]]], list[EncodedPrompt]]
"""Writes the prompts of (row, size) pairs, in their order; the larger the size, the more a prompt shows."""


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits, and its size."""

    prompt: EncodedPrompt
    size: int


@dataclass
class _Search:
    """Bisection state: size `low` fits (-1: not even the smallest is known to), size `high` does not."""

    high: int
    low: int = -1
    best: EncodedPrompt | None = None

    @property
    def is_open(self) -> bool:
        return self.high - self.low > 1

    @property
    def guess(self) -> int:
        return (self.low + self.high) // 2

    def take(self, prompt: EncodedPrompt, budget_tokens: int) -> None:
        if len(prompt.token_ids) <= budget_tokens:
            self.low, self.best = self.guess, prompt
        else:
            self.high = self.guess


def longest_fitting(write: Write, sizes: Sequence[int], budget_tokens: int) -> list[Fitted | None]:
    """For each row the largest prompt, up to `sizes[row]`, of at most `budget_tokens`; None: none fits.

    Tries the whole size first; rows that are too long are bisected together, so a batch is
    tokenized at most 2 + log2(largest size) times, the later rounds only over what is too long.
    """
    whole = list(enumerate(sizes))
    fitted: list[Fitted | None] = [None] * len(whole)
    searches: dict[int, _Search] = {}
    for (row, size), prompt in zip(whole, write(whole), strict=True):
        if len(prompt.token_ids) <= budget_tokens:
            fitted[row] = Fitted(prompt, size)
        else:
            searches[row] = _Search(high=size)
    _bisect(write, searches, budget_tokens)
    for row, search in searches.items():
        if search.best is not None:
            fitted[row] = Fitted(search.best, search.low)
    return fitted


def _bisect(write: Write, searches: dict[int, _Search], budget_tokens: int) -> None:
    while guesses := [(row, search.guess) for row, search in searches.items() if search.is_open]:
        for (row, _), prompt in zip(guesses, write(guesses), strict=True):
            searches[row].take(prompt, budget_tokens)
