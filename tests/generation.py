"""Plans, results and a deterministic worker, for tests of generation without an engine."""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipeline.generate.contract import ShardResult, SourceCounts, WorkerProgress, WorkerSpec
from pipeline.schemas import FAILED, KNOWLEDGE, PLAN
from pipeline.settings import RunSettings
from pipeline.storage.layout import RunLayout

FINGERPRINT = "f" * 64
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def run_settings(data: str = "data", **cluster) -> RunSettings:
    groups = {"item_groups": {"groups": {}}, "user_groups": {"num_groups": 1, "num_factors": 1}}
    prompt = {"template": "{{ title }}", "max_tokens": 8}
    return RunSettings.model_validate({
        "dataset": {
            "name": "toy", "reader": "movielens", "min_rating": 1, "max_rating": 5, "item_word": "movie",
            **groups,
        },
        "knowledge": {"name": "kar", "max_history": 5, "user": prompt, "item": prompt},
        "model": {"name": "toy", "path": "/models/toy", "max_model_len": 64},
        "engine": {"max_num_seqs": 4, "enforce_eager": True},
        "drafter": {"name": "laser", "max_draft_tokens": 8},
        "acceptance": {"name": "relaxed", "top_k": 2, "min_prob": 0.1},
        "plan": {"shard_size": 4},
        "cluster": cluster,
        "paths": {"data": data},
        "limit": "all",
    })  # fmt: skip


def make_plan(num_shards: int, rows_per_shard: int) -> pa.Table:
    """Shards `item-00000`, ..., with entities `0`, `1`, ..."""
    ids = range(num_shards * rows_per_shard)
    rows = [
        {
            "shard": f"item-{number // rows_per_shard:05}",
            "entity_id": str(number),
            "kind": "item",
            "group": "drama",
            "prompt": f"prompt {number}",
            "prompt_token_ids": [number],
            "prompt_hash": f"hash-{number}",
            "max_tokens": 8,
            "history_cutoff": None,
        }
        for number in ids
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def make_result(
    shard: str, rows: pa.Table, failing: frozenset[str] = frozenset(), fingerprint: str = FINGERPRINT
) -> ShardResult:
    """Eight tokens in four steps for each row; the entities in `failing` fail."""
    knowledge, failed = [], []
    for row in rows.to_pylist():
        if row["entity_id"] in failing:
            failed.append({
                "stage": "generate", "entity_id": row["entity_id"], "kind": row["kind"], "reason": "planted"
            })  # fmt: skip
            continue
        knowledge.append({
            "entity_id": row["entity_id"], "kind": row["kind"], "group": row["group"],
            "text": f"text of {row['prompt']}", "token_ids": list(range(8)),
            "prompt_hash": row["prompt_hash"],
            "num_prompt_tokens": 1, "num_output_tokens": 8, "num_draft_tokens": 6, "num_accepted_tokens": 4,
            "num_relaxed_tokens": 2, "num_decode_steps": 4, "finish_reason": "stop", "model": "toy",
            "model_revision": "1", "knowledge": "kar", "acceptance": "relaxed(k=2,p=0.1)",
            "datastore_version": None, "fingerprint": fingerprint, "run_id": "run", "generated_at": NOW,
            "history_cutoff": None,
        })  # fmt: skip
    return ShardResult(
        shard, pa.Table.from_pylist(knowledge, schema=KNOWLEDGE), pa.Table.from_pylist(failed, schema=FAILED)
    )


def make_spec(layout: RunLayout, **cluster) -> WorkerSpec:
    return WorkerSpec(
        settings=run_settings(**cluster),
        model_path="/models/toy",
        model_revision="1",
        tokenizer_hash="0",
        fingerprint=FINGERPRINT,
        run_id="run",
        datastore=None,
        datastore_version=None,
        run_log=str(layout.log),
    )


class ToyWorker:
    """Answers at once. Leaves a file in the run's folder `trace/` for each start and each shard."""

    seconds_per_shard = 0.0

    def __init__(self, spec: WorkerSpec, finished_parts: list[str]) -> None:
        sys.stdout.write("noise of Python\n")
        os.system("echo noise of a child process")
        self.trace = Path(spec.run_log).parent / "trace"
        self.trace.mkdir(exist_ok=True)
        self.finished_parts = finished_parts
        self.num_rows = 0
        self.leave("started", str(len(finished_parts)))

    def leave(self, name: str, content: str = "") -> int:
        """Record an event; return how often it happened before."""
        count = len(list(self.trace.glob(f"{name}.*")))
        (self.trace / f"{name}.{os.getpid()}.{count}").write_text(content)
        return count

    def run_shard(self, shard: str, rows: pa.Table) -> ShardResult:
        attempt = self.leave(shard)
        self.before(shard, attempt)
        time.sleep(self.seconds_per_shard)
        self.num_rows += rows.num_rows
        return make_result(shard, rows)

    def before(self, shard: str, attempt: int) -> None:
        """For planted failures."""

    def progress(self) -> WorkerProgress:
        n = self.num_rows
        return WorkerProgress(n, 8 * n, 4 * n, 6 * n, 4 * n, 2 * n, {"pool": SourceCounts(6 * n, 4 * n)})

    def close(self) -> None:
        self.leave("closed")
