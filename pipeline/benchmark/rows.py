"""From measured windows to the figures of the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pyarrow as pa

from pipeline.benchmark.engine_process import Window
from pipeline.benchmark.methods import BASELINE
from pipeline.generate.engine import WrittenText
from pipeline.generate.summary import count_repeated_ngrams, repeated_shares
from pipeline.schemas import TOKEN_IDS

LOOPING = 0.02  # share of repeated 8-grams from which a text is said to loop


@dataclass(frozen=True)
class BenchRow:
    """One method in one cell. Ratios compare with `none` in the same round, on the same prompts.

    Speeds are those of decoding, the prompts being in the prefix cache, unless they say otherwise.
    """

    method: str
    concurrency: int
    kind: str
    tokens_per_sec: float  # median of the rounds
    ratio_to_none: float  # median of the rounds
    ratio_low: float
    ratio_high: float
    ratio_with_prefill: float  # median of the rounds, the time of the prompts included
    tokens_per_step: float  # of a request
    drafted_per_step: float  # of a request
    drafter_ms_per_step: float  # of the engine's step
    looping_share: float  # of 8-grams, those that stood in the same text before
    tokens_per_step_without_loops: float  # see `_without_loops`; 0: there are no such texts
    ms_per_step: float  # of the engine's step
    num_rounds: int
    num_texts: int  # measured to their ends, in all rounds
    num_texts_without_loops: int
    ratio_without_loops: float  # estimated, see `_row`; 0: there are no such texts
    mean_concurrency: float  # requests in flight, mean of the engine's steps; it falls when fillers run out


def bench_rows(kind: str, concurrency: int, windows: dict[str, list[Window]]) -> list[BenchRow]:
    """A row for each method; `windows`: those of its rounds, `none` among the methods."""
    plain = [_hardly_looping(window) for window in windows[BASELINE]]
    return [
        _row(method, kind, concurrency, rounds, windows[BASELINE], plain)
        for method, rounds in windows.items()
    ]


def _row(
    method: str,
    kind: str,
    concurrency: int,
    rounds: list[Window],
    baseline: list[Window],
    plain: list[set[str]],
) -> BenchRow:
    """The figures of one method; `plain`: the entities of each round whose text by `none` hardly loops.

    A step's time is that of its whole batch, looping texts included, so it cannot be told what the texts
    without loops would have taken alone. Their ratio is estimated: that of all texts, scaled by how many
    tokens they get from a step.
    """
    ratios = [_rate(window) / _rate(base) for window, base in zip(rounds, baseline, strict=True)]
    with_prefill = [
        _rate_with_prefill(window) / _rate_with_prefill(base)
        for window, base in zip(rounds, baseline, strict=True)
    ]
    texts = [text for window in rounds for text in window.texts.values()]
    without_loops = _without_loops(rounds, plain)
    tokens_per_step, plain_tokens_per_step = _tokens_per_step(texts), _tokens_per_step(without_loops)
    repeated, total = count_repeated_ngrams(_token_ids(texts))
    engine_steps = max(sum(window.num_steps for window in rounds), 1)
    return BenchRow(
        method=method,
        concurrency=concurrency,
        kind=kind,
        tokens_per_sec=median(_rate(window) for window in rounds),
        ratio_to_none=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        ratio_with_prefill=median(with_prefill),
        tokens_per_step=tokens_per_step,
        drafted_per_step=sum(text.num_draft_tokens for text in texts) / _num_steps(texts),
        drafter_ms_per_step=1000.0 * sum(window.drafter_sec for window in rounds) / engine_steps,
        looping_share=repeated / total if total else 0.0,
        tokens_per_step_without_loops=plain_tokens_per_step,
        ms_per_step=1000.0 * sum(window.seconds for window in rounds) / engine_steps,
        num_rounds=len(rounds),
        num_texts=len(texts),
        num_texts_without_loops=len(without_loops),
        mean_concurrency=sum(window.mean_concurrency * window.num_steps for window in rounds) / engine_steps,
        ratio_without_loops=median(ratios) * plain_tokens_per_step / tokens_per_step,
    )


def _rate(window: Window) -> float:
    return window.num_tokens / window.seconds


def _rate_with_prefill(window: Window) -> float:
    """Tokens per second if each text's prompt has to be read too, once, as in a night."""
    tokens_per_text = sum(len(text.token_ids) for text in window.texts.values()) / len(window.texts)
    return 1.0 / (1.0 / _rate(window) + window.prefill_sec / tokens_per_text)


def _without_loops(rounds: list[Window], plain: list[set[str]]) -> list[WrittenText]:
    """The method's texts that hardly loop, of the entities in `plain`: by neither method is it a loop.

    A relaxed text may loop where the plain one does not; it would be as easy to draft as any other loop.
    """
    return [
        window.texts[entity]
        for window, entities in zip(rounds, plain, strict=True)
        for entity in sorted(entities & _hardly_looping(window))
    ]


def _hardly_looping(window: Window) -> set[str]:
    shares = repeated_shares(_token_ids(list(window.texts.values())))
    return {entity for entity, share in zip(window.texts, shares, strict=True) if share < LOOPING}


def _token_ids(texts: Sequence[WrittenText]) -> pa.Array:
    return pa.array([text.token_ids for text in texts], TOKEN_IDS)


def _tokens_per_step(texts: Sequence[WrittenText]) -> float:
    return sum(len(text.token_ids) for text in texts) / _num_steps(texts)


def _num_steps(texts: Sequence[WrittenText]) -> int:
    return max(sum(text.num_decode_steps for text in texts), 1)
