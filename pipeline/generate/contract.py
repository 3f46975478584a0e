"""What dispatch and the worker promise each other. Everything here must pickle."""

from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.settings import RunSettings


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; the same for all workers of a run."""

    settings: RunSettings
    model_path: str  # local directory (or hub id) that vLLM loads
    model_revision: str
    tokenizer_hash: str
    fingerprint: str
    run_id: str
    datastore: str | None  # folder of the datastore version to draft from
    datastore_version: str | None
    run_log: str  # file that takes the engine's output
    text_fingerprint: str = ""  # what the rows carry; empty: `fingerprint`
    shares_texts: bool = False  # rows with equal prompts share a text, where `pipeline.sharing` says so


@dataclass(frozen=True)
class ShardResult:
    """What became of the rows of one shard: each stands in exactly one of the two tables."""

    shard: str
    knowledge: pa.Table  # schema KNOWLEDGE
    failed: pa.Table  # schema FAILED, stage="generate", with entity_id and kind


@dataclass(frozen=True)
class SourceCounts:
    """Draft tokens of one draft source."""

    num_draft_tokens: int
    num_accepted_tokens: int


@dataclass(frozen=True)
class WorkerProgress:
    """Running totals since the worker started, none of which ever decreases, and its engine's state now."""

    num_rows: int
    num_output_tokens: int
    num_decode_steps: int  # sum over requests
    num_draft_tokens: int
    num_accepted_tokens: int
    num_relaxed_tokens: int
    sources: dict[str, SourceCounts]
    num_decoded_tokens: int = 0  # those of unfinished texts too
    num_engine_steps: int = 0  # steps that the drafter drafted in
    drafter_sec: float = 0.0  # spent on drafting in them
    num_running: int = 0  # sequences in the batch now
    price: float | None = None  # the chance from which a draft token is worth verifying now


class Worker(Protocol):
    """A plain class that owns one engine. Dispatch makes a Ray actor of it.

    Built in the main thread of its process; the other methods are called from several threads.
    `__init__` takes the finished parts of this run, whose texts teach the worker's drafter; what it
    raises ends the run (a `PipelineError` as it is, anything else as `ModelError`).
    """

    def __init__(self, spec: WorkerSpec, finished_parts: list[str]) -> None: ...

    def run_shard(self, shard: str, rows: pa.Table) -> ShardResult:
        """Generate `rows` (schema PLAN). Blocks; thread-safe, several may run at once."""
        ...

    def progress(self) -> WorkerProgress:
        """Totals so far; cheap to ask for while shards run."""
        ...

    def close(self) -> dict[str, Any] | None:
        """Release the engine; no other method is called afterwards. Returns what the drafter has learned,
        as JSON values, if it learns: the next datastore version keeps it."""
        ...
