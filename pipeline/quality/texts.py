"""What the texts of a run say, measured in full: for comparing prompts, not for every run.

Beyond `aboutness`, which needs no model: how well a sentence encoder finds a text's own prompt among all
others, and whether a title that a user's text names as liked was rated above the user's mean. The latter
reads English only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.aboutness import (
    Aboutness,
    AboutText,
    measure_aboutness,
    names_any,
    prose_of,
    title_forms,
    words_of,
)
from pipeline.generate.summary import count_repeated_ngrams
from pipeline.plan_file import read_rows, shard_sizes
from pipeline.settings import KINDS, Kind
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.location import read_table

Encode = Callable[[list[str]], np.ndarray]

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n")
_LIKES = re.compile(
    r"\b(?:lik(?:e[sd]?|ing)|lov(?:e[sd]?|ing)|enjoy\w*|favou?rit\w*|favou?r[sed]*|prefer\w*|appreciat\w*|praise[sd]?"
    r"|fond|drawn|great|best|excellent|positive\w*|interest\w*|appeal\w*|high\w*)\b",
    re.IGNORECASE,
)
_DISLIKES = re.compile(
    r"\b(?:dislik\w*|hat(?:e[sd]?|ing)|avoid\w*|disappoint\w*|unlike|bor(?:ed|ing)|worst|poor\w*|negative\w*|lower|lowest"
    r"|least|less|unsatisf\w*|trouble)\b"
    r"|(?:\bnot|n['\u2019]t|\bnever) (?:\w+ ){0,2}?(?:like|love|enjoy|appreciate|appeal\w*|care|prefer|find"
    r"|fond|interest\w*|a fan)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TextMeasures:
    """What the finished texts of one kind say."""

    aboutness: Aboutness
    mean_rank: float  # of the own prompt among all of the kind, by embedding: 0 is the first, 0.5 chance
    first_share: float  # texts whose own prompt is nearest of all
    looping_share: float  # of all 8-grams of tokens, those that stood in the same text before
    cut_share: float  # texts that ended because they had no tokens left
    mean_tokens: float
    tokens_per_step: float
    num_polarity: int  # titles named as liked or as disliked
    num_polarity_right: int  # of these, as they were rated: above, or below, the user's mean


def measure_texts(run: RunLayout, dataset: DatasetLayout, encode: Encode) -> dict[Kind, TextMeasures]:
    """Measure all finished texts of `run`, for each kind that has any. Meant for some thousands of texts."""
    shards = [shard for shard in shard_sizes(run.plan) if run.part_manifest(shard).exists()]
    found: dict[Kind, TextMeasures] = {}
    for kind in KINDS:
        rows = [row for shard in shards if shard.startswith(f"{kind}-") for row in _rows(run, shard)]
        if rows:
            ratings = _ratings(dataset, {row["entity_id"] for row in rows}) if kind == "user" else {}
            found[kind] = _measured(rows, ratings, encode)
    return found


def _rows(run: RunLayout, shard: str) -> list[dict[str, Any]]:
    plan = {row["entity_id"]: row for row in read_rows(run.plan, shard).to_pylist()}
    rows: list[dict[str, Any]] = read_table(run.part(shard)).to_pylist()
    return [
        row | {"titles": plan[row["entity_id"]]["titles"] or [], "prompt": plan[row["entity_id"]]["prompt"]}
        for row in rows
    ]


def _ratings(dataset: DatasetLayout, users: set[str]) -> dict[str, dict[str, float]]:
    """user -> title -> rating, less the user's mean."""
    tables = dataset.tables
    items = read_table(tables / "items.parquet", columns=["item_id", "title"])
    titles = dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))
    events = read_table(tables / "interactions.parquet", columns=["user_id", "item_id", "rating"])
    events = events.filter(pc.is_in(events["user_id"], value_set=pa.array(sorted(users))))
    ratings: dict[str, dict[str, float]] = {}
    for row in events.to_pylist():
        if row["rating"] is not None:
            ratings.setdefault(row["user_id"], {})[titles[row["item_id"]]] = row["rating"]
    return {
        user: {title: rating - float(np.mean(list(of_user.values()))) for title, rating in of_user.items()}
        for user, of_user in ratings.items()
    }


def _measured(
    rows: list[dict[str, Any]], ratings: dict[str, dict[str, float]], encode: Encode
) -> TextMeasures:
    repeated, total = count_repeated_ngrams(
        pa.array([row["token_ids"] for row in rows], pa.list_(pa.int32()))
    )
    mean_rank, first_share = prompt_ranks(
        encode([row["text"] for row in rows]), encode(_without_shared([row["prompt"] for row in rows]))
    )
    named = [pair for row in rows for pair in _polarities(row, ratings.get(row["entity_id"], {}))]
    num_tokens = sum(row["num_output_tokens"] for row in rows)
    return TextMeasures(
        aboutness=measure_aboutness([AboutText(prose_of(row), row["titles"]) for row in rows]),
        mean_rank=mean_rank,
        first_share=first_share,
        looping_share=repeated / total if total else 0.0,
        cut_share=float(np.mean([row["finish_reason"] == "length" for row in rows])),
        mean_tokens=num_tokens / len(rows),
        tokens_per_step=num_tokens / max(1, sum(row["num_decode_steps"] for row in rows)),
        num_polarity_right=sum(says_liked == is_liked for says_liked, is_liked in named),
        num_polarity=len(named),
    )


def _without_shared(prompts: list[str]) -> list[str]:
    """The prompts without what stands at the beginning, or at the end, of all of them: their own data."""
    if len(prompts) < 2:
        return prompts
    rest = [prompt[_num_shared(prompts) :] for prompt in prompts]
    end = _num_shared([text[::-1] for text in rest])
    return [text[: len(text) - end] for text in rest]


def _num_shared(texts: list[str]) -> int:
    """How many characters all `texts` begin with."""
    first, last = min(texts), max(texts)  # in the order of the alphabet: what these share, all share
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))


def prompt_ranks(texts: np.ndarray, prompts: np.ndarray) -> tuple[float, float]:
    """(mean rank of a text's own prompt, share of texts whose own is first), by the product of their vectors.

    `texts` and `prompts` are float [n, dim] of length one. A rank is the share of the other prompts that are
    nearer: 0 is the first, 0.5 what chance gives.
    """
    similarities = texts @ prompts.T
    nearer = (similarities > np.diag(similarities)[:, None]).sum(axis=1)
    return float(np.mean(nearer / max(1, len(texts) - 1))), float(np.mean(nearer == 0))


def _polarities(row: dict[str, Any], ratings: dict[str, float]) -> list[tuple[bool, bool]]:
    """(named as liked, rated above the user's mean) of the titles shown, as far as the text says either."""
    found = []
    for title in dict.fromkeys(row["titles"]):
        says_liked = named_as_liked(row["text"], title) if title in ratings else None
        if says_liked is not None and ratings[title] != 0:
            found.append((says_liked, ratings[title] > 0))
    return found


def named_as_liked(text: str, title: str) -> bool | None:
    """Whether the first sentence that names `title` says that it was liked; None: it says neither.

    The last word of liking or dislike before the title decides; if none stands there, the first one behind.
    """
    forms = title_forms(title)
    for sentence in _SENTENCE_END.split(text):
        if names_any(words_of(sentence), forms):
            place = max(0, sentence.casefold().find(forms[0].split(" ")[0].casefold()))
            signs = {match.start(): True for match in _LIKES.finditer(sentence)}
            for match in _DISLIKES.finditer(sentence):
                signs = {at: sign for at, sign in signs.items() if not match.start() <= at < match.end()}
                signs[match.start()] = False
            before = [at for at in signs if at < place]
            if signs:
                return signs[max(before)] if before else signs[min(signs)]
    return None
