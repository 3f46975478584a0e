"""What a run has produced, in numbers: for the terminal, and for `manifest.json`."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.domains.tables import item_titles
from pipeline.generate.aboutness import OWN, Aboutness, objection_to_aboutness
from pipeline.generate.contract import SourceCounts
from pipeline.generate.dispatch import GenerationOutcome
from pipeline.output_bounds import OutputCounts, count_outputs, objection_to
from pipeline.printable import printable
from pipeline.publish_settings import PublishSettings
from pipeline.schemas import DECODING_COUNTS
from pipeline.settings import KINDS, Kind, KnowledgeSettings
from pipeline.stages import duration
from pipeline.storage.layout import RunLayout

NGRAM_TOKENS = 8
MAX_REASONS = 20
# Columns of the table that are shown where a text has the fault; looping and cut texts are finish reasons.
FAULTS = {
    "num_empty": "empty",
    "num_with_control_tokens": "control tokens",
    "num_with_reasoning": "after reasoning",
}
MAX_EXAMPLE_CHARS = 400


@dataclass(frozen=True)
class KindSummary:
    """The rows of one kind of entity."""

    kind: str
    num_rows: int
    finish_reasons: dict[str, int]
    num_output_tokens: int
    num_decode_steps: int
    num_draft_tokens: int
    num_accepted_tokens: int
    num_relaxed_tokens: int
    outputs: OutputCounts
    num_malformed: int | None = None  # answers that are not the JSON asked for; None: plain text was
    num_shared: int = 0  # rows that have the text of an equal prompt, and no counts of their own

    @property
    def tokens_per_step(self) -> float | None:
        """Mean tokens written by one decode step."""
        return _ratio(self.num_output_tokens, self.num_decode_steps)

    @property
    def relaxed_share(self) -> float | None:
        """Share of the generated tokens that are not the model's argmax."""
        return _ratio(self.num_relaxed_tokens, self.num_output_tokens)


@dataclass(frozen=True)
class RunSummary:
    """A run. Rows and tokens are those on disk; speed and draft sources those of this session."""

    kinds: list[KindSummary]
    num_failed: dict[str, int]  # stage -> rows of failed.parquet
    looping_share: float | None  # of all 8-grams of tokens, those that stood in the same text before
    sources: dict[str, SourceCounts]  # draft source -> this session's draft tokens
    tokens_per_sec: float | None  # this session's, while workers were ready; None if nothing was left to do
    decode_sec: float
    elapsed_sec: float
    parts: str
    failed: str
    log: str
    unfinished: dict[str, int]  # last reason -> shards that were given up for it
    aboutness: Mapping[Kind, Aboutness] = field(default_factory=dict)  # kind -> that of its texts

    @property
    def num_rows(self) -> int:
        """Rows of knowledge."""
        return sum(kind.num_rows for kind in self.kinds)

    @property
    def num_output_tokens(self) -> int:
        """Generated tokens."""
        return sum(kind.num_output_tokens for kind in self.kinds)

    @property
    def remarks(self) -> list[str]:
        """What should be looked at although the run may have ended well; a line each."""
        return [
            f"all {kind.num_rows} texts of {kind.kind}s were cut off by max_tokens: too few tokens for what "
            "the prompt asks for, or the model does not end its turns"
            for kind in self.kinds
            if kind.outputs.are_all_cut
        ]

    def objection(self, knowledge: KnowledgeSettings, bounds: PublishSettings) -> str | None:
        """Why the texts must not be used, None if they may."""
        outputs = {kind.kind: kind.outputs for kind in self.kinds}
        return objection_to(outputs, bounds) or objection_to_aboutness(self.aboutness, knowledge, bounds)

    @property
    def how_to_read(self) -> str:
        """A line of Python that loads the rows; the folder holds manifests too, hence the glob."""
        return f'pandas.read_parquet(glob.glob("{self.parts}/*.parquet"))'

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON-able values."""
        kinds = {
            kind.kind: asdict(kind)
            | {"tokens_per_step": kind.tokens_per_step, "relaxed_share": kind.relaxed_share}
            for kind in self.kinds
        }
        aboutness = {kind: about.as_dict() for kind, about in self.aboutness.items()}
        totals = {"num_rows": self.num_rows, "num_output_tokens": self.num_output_tokens}
        return asdict(self) | {"kinds": kinds, "aboutness": aboutness, "remarks": self.remarks} | totals


@dataclass(frozen=True)
class ExampleText:
    """One text of a run, for a first look. It comes from a model: show it escaped."""

    entity: str  # for example `item 1127, Truman Show, The (1998)`
    text: str


def example_texts(knowledge: ds.Dataset, tables: Path) -> list[ExampleText]:
    """A text of each kind: the first that the model ended itself, else the first. `tables`: for titles."""
    rows = []
    for kind in KINDS:
        of_kind = knowledge.filter(pc.field("kind") == kind)
        columns = ["kind", "entity_id", "text"]
        ended = of_kind.filter(pc.field("finish_reason") == "stop").head(1, columns=columns)
        rows += (ended if ended.num_rows else of_kind.head(1, columns=columns)).to_pylist()
    titles = item_titles(tables, [row["entity_id"] for row in rows if row["kind"] == "item"])
    named = [(row, titles.get(row["entity_id"]) if row["kind"] == "item" else None) for row in rows]
    return [
        ExampleText(f"{row['kind']} {row['entity_id']}" + (f", {title}" if title else ""), row["text"])
        for row, title in named
    ]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def summarize(
    knowledge: pa.Table | ds.Dataset,
    failed: pa.Table,
    outcome: GenerationOutcome,
    layout: RunLayout,
    elapsed_sec: float,
    structured: Collection[str] = (),
    aboutness: Mapping[Kind, Aboutness] | None = None,
) -> RunSummary:
    """The summary of a run.

    `knowledge` (schema KNOWLEDGE) is read batch by batch, so that a dataset need not fit in memory;
    `failed` is the content of failed.parquet; `elapsed_sec` is what the user waited; `structured` are the
    kinds whose answers should be JSON; `aboutness` is that of each kind's texts.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    outputs: dict[str, OutputCounts] = {}
    num_repeated = num_ngrams = 0
    for batch in knowledge.to_batches():
        counts.update(_counts(batch))
        for kind, found in count_outputs(batch).items():
            outputs[kind] = outputs.get(kind, OutputCounts()) + found
        own = batch.filter(pc.is_null(batch["shared_from"]))
        repeated, total = count_repeated_ngrams(own["token_ids"])
        num_repeated, num_ngrams = num_repeated + repeated, num_ngrams + total
    return RunSummary(
        kinds=[_kind_summary(kind, counts, outputs[kind], kind in structured) for kind in sorted(outputs)],
        num_failed=dict(Counter(failed["stage"].to_pylist())),
        looping_share=_ratio(num_repeated, num_ngrams),
        sources=outcome.progress.sources,
        tokens_per_sec=_ratio(outcome.progress.num_output_tokens, outcome.decode_sec),
        decode_sec=outcome.decode_sec,
        elapsed_sec=elapsed_sec,
        parts=str(layout.parts),
        failed=str(layout.failed),
        log=str(layout.log),
        unfinished=dict(Counter(outcome.unfinished.values()).most_common(MAX_REASONS)),
        aboutness=aboutness or {},
    )


def _counts(batch: pa.RecordBatch) -> Counter[tuple[str, str, str]]:
    """Sums by (kind, finish reason, column).

    `num_rows`: rows; of these `num_unparsed` are without `parsed`, and `num_shared` have another row's text.
    """
    keys = ["kind", "finish_reason"]
    table = pa.Table.from_batches([batch.select([*keys, *DECODING_COUNTS])])
    table = table.append_column("num_unparsed", pc.is_null(batch["parsed"]).cast(pa.int32()))
    table = table.append_column("num_shared", pc.is_valid(batch["shared_from"]).cast(pa.int32()))
    names = [*DECODING_COUNTS, "num_unparsed", "num_shared"]
    sums = table.group_by(keys).aggregate([([], "count_all"), *((name, "sum") for name in names)])
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in sums.to_pylist():
        key = row["kind"], row["finish_reason"]
        counts[*key, "num_rows"] += row["count_all"]
        for name in names:
            counts[*key, name] += row[f"{name}_sum"]
    return counts


def _kind_summary(
    kind: str, counts: Counter[tuple[str, str, str]], outputs: OutputCounts, is_structured: bool
) -> KindSummary:
    reasons = {
        reason: number
        for (of_kind, reason, name), number in sorted(counts.items())
        if of_kind == kind and name == "num_rows"
    }
    sums = {name: sum(counts[kind, reason, name] for reason in reasons) for name in DECODING_COUNTS}
    num_unparsed = sum(counts[kind, reason, "num_unparsed"] for reason in reasons)
    return KindSummary(
        kind=kind,
        num_rows=sum(reasons.values()),
        finish_reasons=reasons,
        outputs=outputs,
        num_malformed=num_unparsed if is_structured else None,
        num_shared=sum(counts[kind, reason, "num_shared"] for reason in reasons),
        **sums,
    )


def count_repeated_ngrams(texts: pa.Array, size: int = NGRAM_TOKENS) -> tuple[int, int]:
    """(n-grams that stood earlier in the same text, all n-grams) of `texts`, a list<int> array."""
    hashes, _ = _ngrams(texts, size)
    return len(hashes) - len(np.unique(hashes)), len(hashes)


def repeated_shares(texts: pa.Array, size: int = NGRAM_TOKENS) -> np.ndarray:
    """For each text of `texts`, a list<int> array, the share of its n-grams that stood earlier in it.

    0 for a text too short to have one.
    """
    hashes, text = _ngrams(texts, size)
    _, first = np.unique(hashes, return_index=True)
    num_ngrams = np.bincount(text, minlength=len(texts))
    num_repeated = num_ngrams - np.bincount(text[first], minlength=len(texts))
    return num_repeated / np.maximum(num_ngrams, 1)


def _ngrams(texts: pa.Array, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(hash, number of its text) of every n-gram of `texts`; equal n-grams of two texts differ.

    N-grams are told apart by a 64-bit hash; a collision among a billion of them is a matter of percents.
    """
    tokens = pc.list_flatten(texts).to_numpy(zero_copy_only=False).astype(np.uint64)
    text = pc.list_parent_indices(texts).to_numpy(zero_copy_only=False).astype(np.uint64)
    num_windows = len(tokens) - size + 1
    if num_windows < 1:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    inside = text[:num_windows] == text[size - 1 :]
    hashes = _mixed(text[:num_windows])
    for position in range(size):
        hashes = _mixed(hashes ^ tokens[position : position + num_windows])
    return hashes[inside], text[:num_windows][inside].astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer: a bijection of uint64 that spreads every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def render(summary: RunSummary, console: Console) -> None:
    """Write the summary to `console`: a table of kinds, then a few lines."""
    console.print(_kind_table(summary))
    for name, value in _lines(summary):
        console.print(f"{name:<12} {value}", markup=False, highlight=False, soft_wrap=True)


def render_examples(examples: Sequence[ExampleText], console: Console) -> None:
    """Write the beginning of each text to `console`, below the entity that it is about."""
    for example in examples:
        console.print(f"\n{printable(example.entity)}", markup=False, highlight=False, emoji=False)
        text = printable(" ".join(example.text.split()))
        if len(text) > MAX_EXAMPLE_CHARS:
            text = f"{text[:MAX_EXAMPLE_CHARS].rstrip()} …"
        for line in Text(text or "(empty)").wrap(console, console.width - 2):
            console.print(f"  {line.plain.rstrip()}", markup=False, highlight=False, emoji=False)


def _kind_table(summary: RunSummary) -> Table:
    reasons = sorted({reason for kind in summary.kinds for reason in kind.finish_reasons})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("kind")
    is_structured = any(kind.num_malformed is not None for kind in summary.kinds)
    malformed = ["malformed"] if is_structured else []
    faults = {
        title: name for name, title in FAULTS.items() if any(getattr(k.outputs, name) for k in summary.kinds)
    }
    shared = ["shared"] if any(kind.num_shared for kind in summary.kinds) else []
    for name in ("rows", *shared, *reasons, *faults, *malformed, "tokens", "tokens/step", "relaxed"):
        table.add_column(name, justify="right")
    for kind in summary.kinds:
        table.add_row(
            kind.kind,
            str(kind.num_rows),
            *(str(kind.num_shared) for _ in shared),
            *(str(kind.finish_reasons.get(reason, 0)) for reason in reasons),
            *(str(getattr(kind.outputs, name)) for name in faults.values()),
            *(_number(kind.num_malformed, "d") for _ in malformed),
            str(kind.num_output_tokens),
            _number(kind.tokens_per_step, ".2f"),
            _number(kind.relaxed_share, ".1%"),
        )
    return table


def _lines(summary: RunSummary) -> list[tuple[str, str]]:
    failures = ", ".join(f"{count} in stage {stage}" for stage, count in sorted(summary.num_failed.items()))
    lines = [
        ("speed", f"{_number(summary.tokens_per_sec, '.0f')} tokens/s over {duration(summary.decode_sec)}"),
        ("elapsed", duration(summary.elapsed_sec)),
        ("drafts", _drafts(summary.sources)),
        *aboutness_lines(summary.aboutness),
        ("looping", f"{_number(summary.looping_share, '.1%')} of {NGRAM_TOKENS}-grams are repeats"),
        ("failures", failures or "none"),
        ("knowledge", summary.parts),
        ("read it", summary.how_to_read),
        ("log", summary.log),
        *(("note", remark) for remark in summary.remarks),
    ]
    if failures:
        lines.insert(5, ("failed rows", summary.failed))
    if summary.tokens_per_sec is None:
        lines[0] = ("speed", "nothing was left to generate")
    return lines


def aboutness_lines(aboutness: Mapping[Kind, Aboutness]) -> list[tuple[str, str]]:
    """A line for each kind: its name, and what the texts say of their entities."""
    return [
        (
            f"{kind} texts",
            f"{about.named:.0%} name {OWN[kind]} (another's: {about.named_other:.0%}), "
            f"{about.shared_openings:.0%} share their first five words, {about.distinct:.0%} are distinct",
        )
        for kind, about in aboutness.items()
    ]


def _drafts(sources: dict[str, SourceCounts]) -> str:
    texts = [
        f"{name} {counts.num_accepted_tokens}/{counts.num_draft_tokens} accepted"
        f" ({_number(_ratio(counts.num_accepted_tokens, counts.num_draft_tokens), '.0%')})"
        for name, counts in sorted(sources.items())
    ]
    return ", ".join(texts) or "none"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
