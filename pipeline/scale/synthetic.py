"""Prompts and finished shards of any number, in the shape of real ones, made column by column."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from pipeline.generate.contract import ShardResult
from pipeline.schemas import FAILED, KNOWLEDGE, PROMPTS, TIMESTAMP, TOKEN_IDS

PROMPT_CHARACTERS = 1200  # as MovieLens' user prompts
PROMPT_TOKENS = 300
OUTPUT_CHARACTERS = 1000
OUTPUT_TOKENS = 250
NUM_GROUPS = 32
NUM_TITLES = 15
VOCAB_SIZE = 49152
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = {"history_cutoff": NOW, "latest_event": NOW - timedelta(days=1)}
ROWS_PER_BATCH = 1024


def prompt_batches(num_rows: int) -> Iterator[pa.Table]:
    """`num_rows` users in `NUM_GROUPS` groups, group after group as they are rendered: schema PROMPTS.

    Within a group the order is not that of the prompts.
    """
    for first in range(0, num_rows, ROWS_PER_BATCH):
        yield _prompts(np.arange(first, min(first + ROWS_PER_BATCH, num_rows)), num_rows)


def _prompts(rows: np.ndarray, num_rows: int) -> pa.Table:
    dice = np.random.default_rng(0)
    words = dice.choice(np.array(["comedy ", "drama ", "western "]), size=64)
    body = ("".join(words) * (PROMPT_CHARACTERS // 400 + 1))[:PROMPT_CHARACTERS]
    ids = [f"{row:09d}" for row in rows]
    columns = {
        "entity_id": pa.array(ids),
        "kind": _constant("user", len(rows)),
        "group": pa.array([f"group-{row * NUM_GROUPS // num_rows:02d}" for row in rows]),
        "prompt": pa.array([entity[::-1] + body for entity in ids]),
        "prompt_token_ids": _tokens(len(rows), PROMPT_TOKENS, dice),
        "prompt_hash": pa.array([f"{entity:0<64}" for entity in ids]),
        "max_tokens": pa.array(np.full(len(rows), OUTPUT_TOKENS, np.int32)),
    }
    columns["titles"] = pa.array([[body[:20]] * NUM_TITLES] * len(rows))
    columns["answer_prefix"] = pa.nulls(len(rows), pa.string())
    columns |= {name: pa.array([when] * len(rows), TIMESTAMP) for name, when in TIMES.items()}
    return pa.table(columns).select(PROMPTS.names).cast(PROMPTS)


def finished(shard: str, planned: pa.Table, fingerprint: str) -> ShardResult:
    """A text for each row of `planned` (schema PLAN)."""
    num_rows = planned.num_rows
    dice = np.random.default_rng(num_rows)
    counts = {name: OUTPUT_TOKENS for name in KNOWLEDGE.names if name.startswith("num_")}
    columns: dict[str, pa.Array] = {}
    for field in KNOWLEDGE:
        if field.name in planned.column_names:
            columns[field.name] = planned[field.name]
        elif field.name == "shared_from":
            columns[field.name] = pa.nulls(num_rows, pa.string())
        elif field.name == "token_ids":
            columns[field.name] = _tokens(num_rows, OUTPUT_TOKENS, dice)
        elif field.name in counts:
            columns[field.name] = pa.array(np.full(num_rows, counts[field.name], np.int32))
        elif field.name == "text":
            columns[field.name] = pa.array(_texts(num_rows, dice))
        elif pa.types.is_timestamp(field.type):
            columns[field.name] = pa.array([NOW] * num_rows, TIMESTAMP)
        else:
            columns[field.name] = _constant(fingerprint if field.name == "fingerprint" else "stop", num_rows)
    return ShardResult(shard, pa.table(columns).cast(KNOWLEDGE), FAILED.empty_table())


def _constant(text: str, num_rows: int) -> pa.Array:
    return pa.array([text], pa.string()).take(pa.array(np.zeros(num_rows, np.int64)))


def _tokens(num_rows: int, length: int, dice: np.random.Generator) -> pa.Array:
    values = dice.integers(0, VOCAB_SIZE, num_rows * length, dtype=np.int32)
    offsets = np.arange(num_rows + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)).cast(TOKEN_IDS)


def _texts(num_rows: int, dice: np.random.Generator) -> list[str]:
    letters = dice.integers(97, 123, (num_rows, OUTPUT_CHARACTERS), dtype=np.uint8)
    return [row.tobytes().decode() for row in letters]
