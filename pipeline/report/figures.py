"""What a run did, in figures: a pure data object between the files of a run and the pages that show it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from pipeline.failure_bound import KindCounts
from pipeline.generate.aboutness import Aboutness
from pipeline.generate.contract import SourceCounts
from pipeline.output_bounds import OutputCounts
from pipeline.report.night import Night
from pipeline.schemas import DECODING_COUNTS
from pipeline.settings import Kind

TOLERANCE = 0.25  # of the median
MAX_REPEATED = 0.01  # of the planned texts; with more, figures of decoding are not compared
MIN_NIGHTS = 3
GENERATE_STAGE = "generate"
READ_STAGE = "read"
State = Literal["done", "failed", "stopped", "running"]


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`; None if there is nothing to divide by."""
    return part / whole if whole else None


@dataclass(frozen=True)
class Decoding:
    """Sums over texts; see `pipeline.schemas.KNOWLEDGE` for the counts."""

    num_rows: int = 0
    num_output_tokens: int = 0
    num_decode_steps: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_relaxed_tokens: int = 0

    @staticmethod
    def total(parts: Iterable["Decoding"]) -> "Decoding":
        """The sum of `parts`."""
        sums = [0] * (len(DECODING_COUNTS) + 1)
        for part in parts:
            sums = [a + b for a, b in zip(sums, part.as_tuple(), strict=True)]
        return Decoding(*sums)

    def as_tuple(self) -> tuple[int, ...]:
        """The fields in their order."""
        return (self.num_rows, *(getattr(self, name) for name in DECODING_COUNTS))

    @property
    def tokens_per_step(self) -> float | None:
        """Mean tokens written by one decode step of a text: the acceptance length."""
        return ratio(self.num_output_tokens, self.num_decode_steps)

    @property
    def acceptance(self) -> float | None:
        """Share of the draft tokens that the verification took."""
        return ratio(self.num_accepted_tokens, self.num_draft_tokens)

    @property
    def relaxed_share(self) -> float | None:
        """Share of the written tokens that are not the model's argmax."""
        return ratio(self.num_relaxed_tokens, self.num_output_tokens)


@dataclass(frozen=True)
class Sample:
    """One text, to be read by a person. It comes from a model: show it escaped."""

    what: str  # why it was chosen, for example `median length`
    kind: str
    entity_id: str
    group: str
    num_output_tokens: int
    num_decode_steps: int
    finish_reason: str
    text: str  # shortened
    title: str | None = None  # of an item; None of a user, or if the tables do not know it

    @property
    def entity(self) -> str:
        """Whose text it is, for example `item 1127, Truman Show, The (1998)`."""
        return f"{self.kind} {self.entity_id}" + (f", {self.title}" if self.title else "")


@dataclass(frozen=True)
class RowFigures:
    """What the knowledge rows of the run say. Keys of `lengths` and `finish_reasons` are kinds."""

    groups: dict[tuple[str, str], Decoding] = field(default_factory=dict)  # (kind, group)
    rules: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # acceptance rules of each
    finish_reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: dict[str, np.ndarray] = field(default_factory=dict)  # [n]: generated texts with n tokens
    num_looping: dict[str, int] = field(default_factory=dict)  # of the texts measured
    num_measured: dict[str, int] = field(default_factory=dict)  # texts searched for repeats
    num_shared: dict[str, int] = field(default_factory=dict)  # texts that repeat that of an equal prompt
    samples: list[Sample] = field(default_factory=list)
    first_at: datetime | None = None  # when the first text was written
    last_at: datetime | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds there are, sorted."""
        return sorted({kind for kind, _ in self.groups})

    def of_kind(self, kind: str | None = None) -> Decoding:
        """The sums of one kind, or of all."""
        return Decoding.total(part for key, part in self.groups.items() if kind in (None, key[0]))

    @property
    def looping_share(self) -> float | None:
        """Share of looping texts among those measured."""
        return ratio(sum(self.num_looping.values()), sum(self.num_measured.values()))


@dataclass(frozen=True)
class Moment:
    """A stretch of the generation, as long as the curves resolve it. None where nothing was measured."""

    time: datetime  # its end
    minutes: float  # since the run began
    session: str
    tokens_per_sec: float | None
    num_running: int  # sequences in the batches of all workers
    num_workers: int
    price: float | None
    drafter_ms: float | None  # per step


@dataclass(frozen=True)
class Speed:
    """Time spent by all sessions of the run, and what came of it."""

    decode_sec: float = 0.0  # of the workers together, from the first ready one on, waiting included
    num_decoded_tokens: int = 0
    num_engine_steps: int = 0
    drafter_sec: float = 0.0
    num_sessions: int = 0
    sources: dict[str, SourceCounts] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)

    @property
    def tokens_per_sec(self) -> float | None:
        """Of all workers together."""
        return ratio(self.num_decoded_tokens, self.decode_sec)

    @property
    def drafter_ms(self) -> float | None:
        """Milliseconds of drafting in one step of an engine."""
        sec = ratio(self.drafter_sec, self.num_engine_steps)
        return None if sec is None else 1000 * sec

    @property
    def price(self) -> float | None:
        """Mean over time."""
        return _mean([moment.price for moment in self.moments])

    @property
    def num_running(self) -> float | None:
        """Mean number of sequences in one worker's batch."""
        return _mean([m.num_running / m.num_workers for m in self.moments if m.num_workers])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return ratio(sum(known), len(known))


@dataclass(frozen=True)
class ShardTime:
    """How long one shard took, from its start in a worker to its last row."""

    shard: str
    num_rows: int
    num_failed: int
    seconds: float | None
    node: str | None
    num_output_tokens: int | None = None  # known of the slowest only


@dataclass(frozen=True)
class NodeTime:
    """The shards of one machine."""

    node: str
    num_shards: int
    num_rows: int
    median_sec: float


@dataclass(frozen=True)
class ShardFigures:
    """The shards of the run."""

    num_planned: int | None
    num_finished: int = 0
    median_sec: float | None = None
    slowest: list[ShardTime] = field(default_factory=list)
    nodes: list[NodeTime] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what is wrong with a part, a line for each


@dataclass(frozen=True)
class FailureReason:
    """Failed rows that have one reason in common; digits in it are told apart no further."""

    stage: str
    reason: str
    num_rows: int
    example: str


@dataclass(frozen=True)
class QualityCheck:
    """One measure of the quality gate. `is_ok` is None where it only informs."""

    name: str
    value: str
    budget: str
    is_ok: bool | None


@dataclass(frozen=True)
class SnapshotShare:
    """Texts that validation counted; looping ones are those that repetition detection ended."""

    name: str
    num_rows: int
    num_empty: int
    num_looping: int
    num_with_control_tokens: int = 0


@dataclass(frozen=True)
class RunFacts:
    """What the run was set up to be."""

    run_id: str
    dataset: str
    model: str | None = None
    knowledge: str | None = None
    drafter: str | None = None
    acceptance: str | None = None
    datastore_version: str | None = None
    max_failed_fraction: float | None = None
    num_planned: int | None = None
    num_repeated_prompts: int = 0  # planned ones that texts in the pools answer already
    kinds: list[KindCounts] = field(default_factory=list)  # none of a run of an earlier release
    has_ended: bool = False  # generation came to its end and summed up
    unfinished_reasons: dict[str, int] = field(default_factory=dict)  # reason -> shards
    objection: str | None = None  # why a plain run's texts must not be used; of a night validation says it
    remarks: tuple[str, ...] = ()  # of the summary
    outputs: dict[str, OutputCounts] = field(default_factory=dict)  # by kind
    aboutness: dict[Kind, Aboutness] = field(default_factory=dict)
    num_malformed: dict[str, int] = field(
        default_factory=dict
    )  # kinds that should be JSON: texts that are not

    @property
    def is_new(self) -> bool:
        """Whether hardly a text could be drafted from an earlier answer to its prompt."""
        return self.num_repeated_prompts <= MAX_REPEATED * (self.num_planned or 0)


@dataclass(frozen=True)
class Verdict:
    """How it went, in words."""

    state: State
    headline: str
    reason: str | None = None
    advice: str | None = None


@dataclass(frozen=True)
class Compared:
    """One figure beside those of the nights before."""

    name: str
    label: str
    value: float | None
    median: float | None
    low: float | None
    high: float | None
    num_nights: int

    bad: Literal["higher", "lower"] | None = None  # the direction that needs a look; None: neither
    min_change: float = 0.0  # smaller changes than this are none, whatever the median

    @property
    def flag(self) -> str:
        """`above` or `below` what is usual, where that is bad; empty otherwise, or with too few nights.

        Usual is up to `TOLERANCE` beyond the median. A range of so few nights would not do: of 17 figures
        one is outside it by chance on nearly every night.
        """
        if self.bad is None or self.value is None or self.median is None or self.num_nights < MIN_NIGHTS:
            return ""
        worse_by = self.value - self.median if self.bad == "higher" else self.median - self.value
        if worse_by <= max(TOLERANCE * abs(self.median), self.min_change):
            return ""
        return "above" if self.bad == "higher" else "below"


@dataclass(frozen=True)
class RunFigures:
    """Everything that the report shows."""

    facts: RunFacts
    verdict: Verdict
    started_at: datetime | None
    ended_at: datetime | None
    rows: RowFigures
    speed: Speed
    shards: ShardFigures
    num_failed: dict[str, int]  # stage -> rows; those of stage `read` are raw rows, the others entities
    failures: list[FailureReason]
    night: Night | None
    quality: list[QualityCheck]
    validation: list[SnapshotShare]
    record: dict[str, Any]  # what later nights compare themselves with; `pipeline.report.history`
    history: list[dict[str, Any]]  # the records of nights before, oldest first
    compared: list[Compared]

    @property
    def num_without_text(self) -> int:
        """Entities that failed in any stage."""
        return sum(number for stage, number in self.num_failed.items() if stage != READ_STAGE)

    @property
    def num_entities(self) -> int | None:
        """All that the run was about, with those that got no prompt; None: not known."""
        if self.facts.kinds:
            return sum(counts.num_entities + counts.num_unknown for counts in self.facts.kinds)
        num_unprompted = self.num_without_text - self.num_failed.get(GENERATE_STAGE, 0)
        return None if self.facts.num_planned is None else self.facts.num_planned + num_unprompted

    @property
    def seconds(self) -> float | None:
        """From beginning to end, as the clock on the wall has it."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()
