"""Recorded generations, and how they are split into pool, warm-up and measured texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("entity_id", "group", "prompt_token_ids", "output_token_ids")
NGRAM = 8
ALL_GROUP = "all"
"""Group of the recordings that name none."""


class TraceError(Exception):
    """A trace that cannot be replayed; the message names the file and the reason."""


@dataclass(frozen=True)
class Recording:
    """One recorded generation."""

    entity_id: str
    group: str
    prompt: npt.NDArray[np.int32]
    output: npt.NDArray[np.int32]

    @property
    def text(self) -> npt.NDArray[np.int32]:
        """Prompt and output, as the engine sees them."""
        return np.concatenate([self.prompt, self.output])


@dataclass(frozen=True)
class Split:
    """Recordings by role. An entity plays one role only: it is drawn by a hash of its id."""

    pool: list[Recording]  # earlier knowledge
    warm: list[Recording]  # replayed against the pool first, which teaches the calibration; then pooled too
    measured: list[Recording]

    @property
    def known(self) -> list[Recording]:
        """What every drafter may draft the measured texts from: none has seen a text that another has not."""
        return [*self.pool, *self.warm]


def read_trace(path: Path) -> list[Recording]:
    """Read the Parquet file `path`, without outputs of fewer than two tokens: they leave nothing to draft."""
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise TraceError(f"{path}: not a trace with the columns {', '.join(COLUMNS)}: {error}") from error
    prompts, outputs = _lists(table, "prompt_token_ids"), _lists(table, "output_token_ids")
    rows = zip(table["entity_id"].to_pylist(), table["group"].to_pylist(), prompts, outputs, strict=True)
    return [
        Recording(entity_id, group or ALL_GROUP, prompt, output)
        for entity_id, group, prompt, output in rows
        if len(prompt) and len(output) > 1
    ]


def _lists(table: pa.Table, column: str) -> list[npt.NDArray[np.int32]]:
    lists = table[column].combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))
    return np.split(values, ends[:-1]) if len(ends) else []


def split_by_entity(recordings: Sequence[Recording], held_out_percent: int) -> Split:
    """Draw `held_out_percent` of the entities to be measured, as many for the warm-up, the rest as pool."""
    split = Split([], [], [])
    for recording in recordings:
        share = percentile(recording.entity_id)
        role = (
            split.measured
            if share < held_out_percent
            else split.warm
            if share < 2 * held_out_percent
            else split.pool
        )
        role.append(recording)
    return split


def percentile(entity_id: str) -> int:
    """A stable hash of `entity_id` in [0, 100)."""
    return int.from_bytes(hashlib.sha256(entity_id.encode()).digest()[:8], "big") % 100


def looping_share(recordings: Sequence[Recording]) -> float:
    """Share of the 8-grams of an output that occurred in it before, over all outputs."""
    total = repeated = 0
    for recording in recordings:
        if len(recording.output) < NGRAM:
            continue
        grams = np.lib.stride_tricks.sliding_window_view(recording.output, NGRAM)
        total += len(grams)
        repeated += len(grams) - len(np.unique(grams, axis=0))
    return repeated / total if total else 0.0
