"""Whether texts are about their entities: what a run measures of its own texts, without any model.

A text is worth something to a recommender only if it says something of its entity. A small model, or a prompt
that does not suit it, easily writes essays that would fit anybody. Four shares show it, for each kind:

- *named*: texts that name their item, or an item that the user's prompt showed;
- *named_other*: the same, but compared with the titles of another entity: what chance alone would give;
- *shared openings*: texts whose first five words begin other texts of the sample too;
- *distinct*: different texts.

They are taken from whole shards spread evenly over the run, about `MAX_TEXTS` texts of a kind. The cost does
not grow with the run.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from pipeline.plan_file import read_rows, shard_sizes
from pipeline.publish_settings import PublishSettings
from pipeline.settings import KINDS, Kind, KnowledgeSettings, PromptSettings
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import read_table

MAX_TEXTS = 4000  # of a kind; a share of 10 % is then known to one percentage point (95 %)
OWN: dict[Kind, str] = {"item": "their item", "user": "an item of their history"}
OPENING_WORDS = 5
SHARED_FROM = 0.01  # an opening is shared from two texts on, and from one in a hundred
MAX_TITLE_WORDS = 5  # of a long title, which texts seldom repeat in full
MIN_SHORT_TITLE_CHARS = 4  # a title that is cut at its colon or comma has at least so many characters

_PARENTHESES = re.compile(r"[(\[][^()\[\]]*[)\]]")
_SUBTITLE = re.compile(r"\s*(?::|;|\||,|\s[-\u2013\u2014]\s).*", re.DOTALL)
_NOT_A_WORD = re.compile(r"[^\w]+")
_APOSTROPHES = re.compile(r"['\u2019]")
_ARTICLE = re.compile(r"^(?:the|a|an) (?=.)", re.IGNORECASE)
# Scripts that set no space between words: there a title may stand anywhere in a text.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class AboutText:
    """A text, and the titles that its prompt showed: its own, or those of the user's history."""

    text: str
    titles: Sequence[str]


@dataclass(frozen=True)
class Aboutness:
    """What was counted in the sampled texts of one kind."""

    num_texts: int
    num_named: int
    num_named_other: int
    num_shared_openings: int
    num_same_opening: int  # those that begin with the five words that most begin with
    num_distinct: int

    @property
    def named(self) -> float:
        """Share of texts that name their entity, or a title of its history."""
        return self.num_named / max(self.num_texts, 1)

    @property
    def named_other(self) -> float:
        """Share of texts that name another entity, or a title of its history."""
        return self.num_named_other / max(self.num_texts, 1)

    @property
    def shared_openings(self) -> float:
        """Share of texts whose first five words begin other texts too."""
        return self.num_shared_openings / max(self.num_texts, 1)

    @property
    def same_opening(self) -> float:
        """Share of texts that begin with the most common five words."""
        return self.num_same_opening / max(self.num_texts, 1)

    @property
    def distinct(self) -> float:
        """Different texts, as a share of all."""
        return self.num_distinct / max(self.num_texts, 1)

    def objection(self, kind: Kind, prompt: PromptSettings, bounds: PublishSettings) -> str | None:
        """Why texts written for `prompt` must not be used, None if they may, or are too few to judge."""
        beyond_chance = self.named - self.named_other
        texts = f"texts of {kind}s"
        if self.num_texts < bounds.min_judged_rows:
            return None
        if beyond_chance < prompt.min_named_fraction:
            return (
                f"{self.named:.0%} of the {texts} name {OWN[kind]}, and {self.named_other:.0%} name "
                f"another's: a difference below "
                f"knowledge.{kind}.min_named_fraction={prompt.min_named_fraction:g}"
            )
        if self.shared_openings > prompt.max_shared_openings:
            return (
                f"{self.shared_openings:.0%} of the {texts} share their first five words, more than "
                f"knowledge.{kind}.max_shared_openings={prompt.max_shared_openings:g}"
            )
        if self.distinct < bounds.min_distinct_fraction:
            return (
                f"{self.num_distinct} of {self.num_texts} {texts} are distinct, fewer than "
                f"publish.min_distinct_fraction={bounds.min_distinct_fraction:g}"
            )
        return None

    def as_dict(self) -> dict[str, float]:
        """Counts and shares, as `manifest.json` has them."""
        shares = ("named", "named_other", "shared_openings", "same_opening", "distinct")
        return asdict(self) | {name: getattr(self, name) for name in shares}


def aboutness_in(recorded: Mapping[str, Mapping[str, Any]]) -> dict[Kind, Aboutness]:
    """What `as_dict` wrote of each kind."""
    names = [field.name for field in fields(Aboutness)]
    return {
        kind: Aboutness(**{name: recorded[kind][name] for name in names})
        for kind in KINDS
        if kind in recorded
    }


def objection_to_aboutness(
    found: Mapping[Kind, Aboutness], knowledge: KnowledgeSettings, bounds: PublishSettings
) -> str | None:
    """Why the texts of a run must not be used, None if they may; see `Aboutness.objection`."""
    objections = (about.objection(kind, knowledge.prompt(kind), bounds) for kind, about in found.items())
    return next(filter(None, objections), None)


def aboutness_of_run(layout: RunLayout) -> dict[Kind, Aboutness]:
    """What the finished texts of a run say of their entities, for each kind that has any."""
    sizes = shard_sizes(layout.plan)
    found = {}
    for kind in KINDS:
        shards = [shard for shard in sizes if shard.startswith(f"{kind}-")]
        rows = [row for shard in _spread(shards, sizes) for row in _texts_of_shard(layout, shard)]
        if rows:
            found[kind] = measure_aboutness(rows)
    return found


def _spread(shards: list[str], sizes: dict[str, int]) -> list[str]:
    """Shards from all parts of the plan with about `MAX_TEXTS` rows together."""
    num_rows = sum(sizes[shard] for shard in shards)
    step = max(1.0, num_rows / MAX_TEXTS)
    return [shards[int(place)] for place in np.arange(0, len(shards), step)]


def _texts_of_shard(layout: RunLayout, shard: str) -> list[AboutText]:
    """The texts of `shard`. Of equal prompts one counts: that their texts are equal says nothing."""
    if not layout.part_manifest(shard).exists():
        return []
    plan = read_rows(layout.plan, shard).select(["entity_id", "titles"]).to_pylist()
    titles = {row["entity_id"]: row["titles"] or [] for row in plan}
    columns = ["entity_id", "prompt_hash", "text", "parsed"]
    rows = {row["prompt_hash"]: row for row in read_table(layout.part(shard), columns=columns).to_pylist()}
    return [AboutText(prose_of(row), titles[row["entity_id"]]) for row in rows.values()]


def prose_of(row: dict[str, Any]) -> str:
    """The text; of a JSON answer its values, since the keys are the same in all."""
    text: str = row["text"]
    return text if row["parsed"] is None else " ".join(json.loads(row["parsed"]).values())


def measure_aboutness(rows: Sequence[AboutText], seed: int = 0) -> Aboutness:
    """Count in `rows`, texts of one kind. Each is compared with the titles of a random other row too."""
    texts = [words_of(row.text) for row in rows]
    titles = [[form for title in row.titles for form in title_forms(title)] for row in rows]
    openings = Counter(map(_opening, texts))
    threshold = max(2, SHARED_FROM * len(rows))
    others = _each_another(len(rows), seed)
    return Aboutness(
        num_texts=len(rows),
        num_named=sum(map(names_any, texts, titles)),
        num_named_other=sum(names_any(texts[row], titles[other]) for row, other in enumerate(others)),
        num_shared_openings=sum(count for count in openings.values() if count >= threshold),
        num_same_opening=max(openings.values(), default=0),
        num_distinct=len(set(texts)),
    )


def _each_another(num_rows: int, seed: int) -> list[int]:
    """For each row another one: a random cycle through all. None if there is no other."""
    if num_rows < 2:
        return []
    cycle = np.random.default_rng(seed).permutation(num_rows)
    others = np.empty(num_rows, dtype=np.int64)
    others[cycle] = np.roll(cycle, 1)
    return others.tolist()


def title_forms(title: str) -> list[str]:
    """How a text may name `title`: in full, or without its subtitle; without article, year and brackets.

    Each form has at most `MAX_TITLE_WORDS` words, apart by one space. Several words are in lower case. A
    single one keeps its case: the film "Speed" is not found in "at high speed". A title of signs alone has
    no form.
    """
    whole = _PARENTHESES.sub(" ", title).strip() or title
    forms = [whole]
    short = _SUBTITLE.sub("", whole)
    if len(short) >= MIN_SHORT_TITLE_CHARS:
        forms.append(short)
    cut = [_ARTICLE.sub("", words_of(form)).split(" ")[:MAX_TITLE_WORDS] for form in forms]
    shown = [" ".join(words).casefold() if len(words) > 1 else words[0] for words in cut]
    return list(dict.fromkeys(filter(None, shown)))


def words_of(text: str) -> str:
    """The words of `text`, apart by one space each."""
    return _NOT_A_WORD.sub(" ", _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text))).strip()


def names_any(words: str, forms: Iterable[str]) -> bool:
    """Whether one of the `title_forms` stands in `words`."""
    as_written, folded = f" {words} ", f" {words.casefold()} "
    for form in forms:
        text = folded if " " in form else as_written
        if form in text if _UNSPACED.search(form) else f" {form} " in text:
            return True
    return False


def _opening(words: str) -> str:
    return " ".join(words.casefold().split(" ")[:OPENING_WORDS])
