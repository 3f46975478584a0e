"""What the knowledge rows say, read part by part: memory does not grow with the run."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.summary import repeated_shares
from pipeline.report.figures import Decoding, RowFigures, Sample
from pipeline.schemas import DECODING_COUNTS
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import open_parquet

BATCH_ROWS = 16_384
MAX_MEASURED = 200_000  # texts searched for repeats; of a larger run every n-th
LOOPING_SHARE = 0.5  # a text loops if it ended for it, or if so many of its 8-grams stood in it before
MAX_SAMPLE_CHARS = 700
KEYS = ["entity_id", "kind", "group", "acceptance", "finish_reason"]
COLUMNS = [*KEYS, *DECODING_COUNTS, "token_ids", "generated_at", "shared_from"]
SAMPLE_COLUMNS = [
    "entity_id",
    "kind",
    "group",
    "num_output_tokens",
    "num_decode_steps",
    "finish_reason",
    "text",
]


@dataclass(frozen=True)
class _Place:
    """Where a row stands, and the value it was chosen for."""

    shard: str
    entity_id: str
    kind: str
    value: float


class RowGatherer:
    """Adds parts up; `figures` when all of `shards` have been added."""

    def __init__(self, layout: RunLayout, num_rows: int) -> None:
        """`num_rows`: of all parts together; decides how many texts are searched for repeats."""
        self._layout = layout
        self._stride = max(1, -(-num_rows // MAX_MEASURED))
        self._sums: dict[tuple[str, str], np.ndarray] = {}
        self._rules: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self._lengths: dict[str, np.ndarray] = {}
        self._num_looping: Counter[str] = Counter()
        self._num_measured: Counter[str] = Counter()
        self._num_shared: Counter[str] = Counter()
        self._shards: list[str] = []
        self._times: list[datetime] = []  # first and last
        self._shortest: _Place | None = None
        self._most_looping: _Place | None = None

    def add(self, shard: str) -> None:
        """Read the part of `shard`; raises `OSError` or `pa.ArrowException` if it cannot be read."""
        for batch in _batches(self._layout, shard, COLUMNS):
            self._add_sums(batch)
            self._add_times(batch)
            is_own = _has_own_text(batch)
            for kind, flags in _by_kind(batch, is_own):
                self._num_shared[kind] += int((~flags).sum())
            own = batch.filter(pa.array(is_own))
            self._add_lengths(own)
            self._add_repeats(shard, own)
            self._note_shortest(shard, own)
        self._shards.append(shard)

    def figures(self) -> RowFigures:
        """What was added."""
        groups = {key: Decoding(*map(int, sums)) for key, sums in sorted(self._sums.items())}
        return RowFigures(
            groups=groups,
            rules={key: sorted(rules) for key, rules in self._rules.items()},
            finish_reasons={kind: dict(sorted(counts.items())) for kind, counts in self._reasons.items()},
            lengths=self._lengths,
            num_looping=dict(self._num_looping),
            num_measured=dict(self._num_measured),
            num_shared=dict(self._num_shared),
            samples=self._samples(),
            first_at=self._times[0] if self._times else None,
            last_at=self._times[-1] if self._times else None,
        )

    def _add_sums(self, batch: pa.RecordBatch) -> None:
        keys = ["kind", "group", "acceptance", "finish_reason"]
        table = pa.Table.from_batches([batch.select([*keys, *DECODING_COUNTS])])
        sums = table.group_by(keys).aggregate(
            [([], "count_all"), *((name, "sum") for name in DECODING_COUNTS)]
        )
        for row in sums.to_pylist():
            values = np.array([row["count_all"], *(row[f"{name}_sum"] for name in DECODING_COUNTS)], np.int64)
            key = row["kind"], row["group"]
            self._sums[key] = self._sums.get(key, 0) + values
            self._rules[key].add(row["acceptance"])
            self._reasons[row["kind"]][row["finish_reason"]] += row["count_all"]

    def _add_lengths(self, batch: pa.RecordBatch) -> None:
        for kind, tokens in _by_kind(batch, batch["num_output_tokens"].to_numpy()):
            counts, known = np.bincount(tokens), self._lengths.get(kind, np.zeros(0, np.int64))
            total = np.zeros(max(len(counts), len(known)), np.int64)
            total[: len(known)] += known
            total[: len(counts)] += counts
            self._lengths[kind] = total

    def _add_repeats(self, shard: str, batch: pa.RecordBatch) -> None:
        some = batch.take(pa.array(np.arange(0, batch.num_rows, self._stride)))
        shares = repeated_shares(some["token_ids"])
        is_looping = (shares >= LOOPING_SHARE) | pc.equal(some["finish_reason"], "repetition").to_numpy(False)
        for kind, looping in _by_kind(some, is_looping):
            self._num_looping[kind] += int(looping.sum())
            self._num_measured[kind] += len(looping)
        if is_looping.any():
            row = int(np.argmax(shares + is_looping))
            place = _place(shard, some, row, float(shares[row] + 1))
            if self._most_looping is None or place.value > self._most_looping.value:
                self._most_looping = place

    def _note_shortest(self, shard: str, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        tokens = batch["num_output_tokens"].to_numpy()
        row = int(np.argmin(tokens))
        if self._shortest is None or tokens[row] < self._shortest.value:
            self._shortest = _place(shard, batch, row, float(tokens[row]))

    def _add_times(self, batch: pa.RecordBatch) -> None:
        span = pc.min_max(batch["generated_at"]).as_py()
        times = [*self._times, *(time for time in span.values() if time is not None)]
        self._times = [min(times), max(times)] if times else []

    def _samples(self) -> list[Sample]:
        """Texts that differ from each other; one that was chosen for two reasons has both."""
        chosen = [("shortest", self._shortest), ("looping", self._most_looping)]
        found: dict[str, Sample] = {}  # by text
        for what, place in chosen:
            if place is None or place.shard not in self._shards:
                continue
            sample = self._sample(what, place)
            known = found.get(sample.text)
            found[sample.text] = replace(known, what=f"{known.what}, {what}") if known else sample
        median = self._median(list(found))
        samples = [*found.values(), *([median] if median else [])]
        ranks = {"shortest": 0, "median length": 1}  # a text that loops comes last
        ranked = sorted(samples, key=lambda sample: ranks.get(sample.what.split(",")[0], 2))
        return [replace(sample, text=_shortened(sample.text)) for sample in ranked]

    def _median(self, other_texts: list[str]) -> Sample | None:
        """A text as long as the median of all, and none of `other_texts`."""
        if not self._lengths:
            return None
        length = median_length(list(self._lengths.values()))
        for shard in self._shards:
            for batch in _batches(self._layout, shard, SAMPLE_COLUMNS):
                is_new = pc.invert(pc.is_in(batch["text"], pa.array(other_texts, pa.string())))
                rows = batch.filter(pc.and_(is_new, pc.equal(batch["num_output_tokens"], length)))
                if rows.num_rows:
                    return Sample(what="median length", **rows.slice(0, 1).to_pylist()[0])
        return None

    def _sample(self, what: str, place: _Place) -> Sample:
        """The text at `place`, in full."""
        for batch in _batches(self._layout, place.shard, SAMPLE_COLUMNS):
            is_it = pc.and_(
                pc.equal(batch["entity_id"], place.entity_id), pc.equal(batch["kind"], place.kind)
            )
            rows: list[dict[str, Any]] = batch.filter(is_it).to_pylist()
            if rows:
                return Sample(what=what, **rows[0])
        raise LookupError(f"{place.shard}: {place.kind} {place.entity_id} vanished while it was read")


def median_length(lengths: Sequence[np.ndarray]) -> int:
    """The median of lengths given as counts, [n]: texts with n tokens; there is at least one text."""
    total = np.zeros(max(map(len, lengths)), np.int64)
    for counts in lengths:
        total[: len(counts)] += counts
    return int(np.searchsorted(np.cumsum(total), (total.sum() + 1) // 2))


def _batches(layout: RunLayout, shard: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with open_parquet(layout.part(shard)) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _has_own_text(batch: pa.RecordBatch) -> np.ndarray:
    """Whether the text of each row was generated for it; the others repeat one, and have no counts."""
    if "shared_from" not in batch.schema.names:  # written before texts were shared
        return np.ones(batch.num_rows, dtype=bool)
    return pc.is_null(batch["shared_from"]).to_numpy(zero_copy_only=False)


def _by_kind(batch: pa.RecordBatch, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """`values` [rows of `batch`], apart for each kind."""
    for kind in pc.unique(batch["kind"]).to_pylist():
        yield kind, values[pc.equal(batch["kind"], kind).to_numpy(zero_copy_only=False)]


def _place(shard: str, batch: pa.RecordBatch, row: int, value: float) -> _Place:
    return _Place(shard, batch["entity_id"][row].as_py(), batch["kind"][row].as_py(), value)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SAMPLE_CHARS else text[:MAX_SAMPLE_CHARS].rstrip() + " …"
