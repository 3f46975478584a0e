"""What is measured: a pool of generated texts, and requests whose texts are not in it."""

from dataclasses import dataclass

import numpy as np

from drafters.bench_datastore.texts import TEXT_TOKENS, TextGenerator
from drafters.replay.traces import Recording

GROUP = "bench"
POOL_SEED, WARM_SEED, REQUEST_SEED, TAUGHT_SEED = 0, 1, 2, 3
PROMPT_TOKENS = 300
NUM_REQUESTS = 64


@dataclass(frozen=True)
class PoolSpec:
    """A pool to measure."""

    pool_tokens: int
    vocab_size: int

    @property
    def num_texts(self) -> int:
        """Texts in the pool; each takes one separator besides its tokens."""
        return max(1, self.pool_tokens // (TEXT_TOKENS + 1))


def recordings(spec: PoolSpec, seed: int, count: int) -> list[Recording]:
    """Requests whose texts are not in the pool; their prompts are random tokens."""
    random = np.random.default_rng(seed)
    prompts = random.integers(0, spec.vocab_size, (count, PROMPT_TOKENS)).astype(np.int32)
    texts = TextGenerator(spec.vocab_size, seed).texts(count)
    return [
        Recording(f"request-{seed}-{number}", GROUP, prompt, text)
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
