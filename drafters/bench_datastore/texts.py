"""Token sequences that behave like a pool of knowledge texts, made from a seed.

Knowledge texts repeat each other: turns of phrase come back in many of them, some in most, filled with
names of their own. Here a text is a row of phrases, drawn by Zipf's law from a fixed inventory whose
tokens are themselves drawn by Zipf's law; some tokens are then replaced at random. What a drafter meets
is thus what it meets in a real pool: a long match often, many competitors for a short one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

NUM_PHRASES = 20_000
PHRASE_TOKENS = 12
TEXT_PHRASES = 20
TEXT_TOKENS = PHRASE_TOKENS * TEXT_PHRASES
REPLACED_SHARE = 0.06
TOKEN_EXPONENT = 1.05
PHRASE_EXPONENT = 0.8
BLOCK_TEXTS = 20_000


class TextGenerator:
    """Deterministic for a `seed`; the inventory of phrases depends on the vocabulary only."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._token_shares = _zipf_shares(vocab_size, TOKEN_EXPONENT)
        self._phrase_shares = _zipf_shares(NUM_PHRASES, PHRASE_EXPONENT)
        inventory = np.random.default_rng(0)
        self._phrases = self._tokens(inventory, NUM_PHRASES * PHRASE_TOKENS).reshape(-1, PHRASE_TOKENS)
        self._random = np.random.default_rng([1, seed])

    def texts(self, num_texts: int) -> Iterator[npt.NDArray[np.int32]]:
        """`num_texts` texts of `TEXT_TOKENS` tokens, as views of blocks."""
        for first in range(0, num_texts, BLOCK_TEXTS):
            yield from self._block(min(BLOCK_TEXTS, num_texts - first))

    def _block(self, num_texts: int) -> npt.NDArray[np.int32]:
        chosen = _draw(self._random, self._phrase_shares, num_texts * TEXT_PHRASES)
        block = self._phrases[chosen].reshape(num_texts, TEXT_TOKENS)
        replaced = self._random.random(block.shape, dtype=np.float32) < REPLACED_SHARE
        block[replaced] = self._tokens(self._random, int(replaced.sum()))
        return block

    def _tokens(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
        return _draw(random, self._token_shares, count).astype(np.int32)


def _zipf_shares(size: int, exponent: float) -> npt.NDArray[np.float64]:
    """Cumulative shares of `size` ranks."""
    shares = np.cumsum(1.0 / np.arange(1, size + 1) ** exponent)
    return shares / shares[-1]


def _draw(
    random: np.random.Generator, cumulative: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.int64]:
    return np.searchsorted(cumulative, random.random(count)).astype(np.int64)
