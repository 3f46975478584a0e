"""Prompts and finished shards of any number, in the shape of real ones, made column by column."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from pipeline.generate.contract import ShardResult
from pipeline.schemas import FAILED, KNOWLEDGE, PROMPTS, TIMESTAMP, TOKEN_IDS

PROMPT_CHARACTERS = 1200  # as MovieLens' user prompts
PROMPT_TOKENS = 300
OUTPUT_CHARACTERS = 1000
OUTPUT_TOKENS = 250
NUM_GROUPS = 32
VOCAB_SIZE = 49152
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def prompts(num_rows: int, seed: int = 0) -> pa.Table:
    """`num_rows` users in `NUM_GROUPS` groups, schema PROMPTS."""
    dice = np.random.default_rng(seed)
    ids = np.char.zfill(np.arange(num_rows).astype(str), 9)
    words = dice.choice(np.array(["comedy ", "drama ", "western "]), size=64)
    body = "".join(words) * (PROMPT_CHARACTERS // 400 + 1)
    columns = {
        "entity_id": pa.array(ids),
        "kind": _constant("user", num_rows),
        "group": pa.array(np.char.add("group-", (np.arange(num_rows) % NUM_GROUPS).astype(str))),
        "prompt": pa.array(np.char.add(ids, body[:PROMPT_CHARACTERS])),
        "prompt_token_ids": _tokens(num_rows, PROMPT_TOKENS, dice),
        "prompt_hash": pa.array(np.char.add(ids, "0" * 55)),
        "max_tokens": pa.array(np.full(num_rows, OUTPUT_TOKENS, np.int32)),
    }
    times = [field.name for field in PROMPTS if pa.types.is_timestamp(field.type)]
    columns |= {name: pa.array([NOW] * num_rows, TIMESTAMP) for name in times}
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
