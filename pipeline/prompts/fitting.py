"""Shortens histories until the prompt fits, in few batched rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.prompts.chat import EncodedPrompt

Write = Callable[[list[tuple[int, int]]], list[EncodedPrompt]]
"""Writes the prompts of (row, number of ratings shown) pairs, in their order."""


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits, and how many ratings it shows."""

    prompt: EncodedPrompt
    num_ratings: int


@dataclass
class _Search:
    """Bisection state: `low` ratings fit (-1: not even none is known to), `high` ratings do not."""

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


def longest_fitting(write: Write, num_available: Sequence[int], budget_tokens: int) -> list[Fitted | None]:
    """For each row the prompt with the most ratings that has at most `budget_tokens`; None: none fits.

    Tries the whole history first; rows that are too long are bisected together, so a batch is
    tokenized at most 2 + log2(longest history) times, the later rounds only over what is too long.
    """
    whole = list(enumerate(num_available))
    fitted: list[Fitted | None] = [None] * len(whole)
    searches: dict[int, _Search] = {}
    for (row, available), prompt in zip(whole, write(whole), strict=True):
        if len(prompt.token_ids) <= budget_tokens:
            fitted[row] = Fitted(prompt, available)
        else:
            searches[row] = _Search(high=available)
    _bisect(write, searches, budget_tokens)
    for row, search in searches.items():
        if search.best is not None:
            fitted[row] = Fitted(search.best, search.low)
    return fitted


def _bisect(write: Write, searches: dict[int, _Search], budget_tokens: int) -> None:
    while guesses := [(row, search.guess) for row, search in searches.items() if search.is_open]:
        for (row, _), prompt in zip(guesses, write(guesses), strict=True):
            searches[row].take(prompt, budget_tokens)
