"""The worker: turns the rows of a shard into knowledge rows with an engine of its own."""

import threading
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.contract import ShardResult, WorkerProgress, WorkerSpec
from pipeline.generate.engine import EarlierText, TextEngine, TextRequest, WrittenText
from pipeline.generate.engine_thread import EngineThread
from pipeline.prompts.outputs import Answer, AnswerReader, parse_output
from pipeline.schemas import FAILED, KNOWLEDGE
from pipeline.storage.location import data_path, parquet_dataset


class KnowledgeWorker:
    """See `pipeline.generate.contract.Worker`."""

    def __init__(self, spec: WorkerSpec, finished_parts: list[str]) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._engine: EngineThread = EngineThread(lambda: self._build(finished_parts), self._note)

    def _build(self, finished_parts: list[str]) -> TextEngine:
        self._text_engine = TextEngine(self._spec)
        self._answers = AnswerReader(self._text_engine.tokenizer)
        self._text_engine.teach(_earlier_texts(finished_parts))
        return self._text_engine

    def run_shard(self, shard: str, rows: pa.Table) -> ShardResult:
        """Generate `rows` (schema PLAN)."""
        planned = rows.to_pylist()
        prefix = uuid.uuid4().hex  # a shard that is tried again must not meet its own old keys
        requests = [self._request(f"{prefix}-{number}", row) for number, row in enumerate(planned)]
        outcomes = self._engine.write(requests)
        knowledge, failed = [], []
        for row, request in zip(planned, requests, strict=True):
            outcome = outcomes[request.key]
            if not isinstance(outcome, WrittenText):
                failed.append(_failed_row(row, f"{type(outcome).__name__}: {outcome}"))
            elif (answer := self._answer(row, outcome)) is None:
                failed.append(_failed_row(row, _still_reasoning(row, outcome)))
            else:
                knowledge.append(self._knowledge_row(row, outcome, answer))
        return ShardResult(
            shard,
            pa.Table.from_pylist(knowledge, schema=KNOWLEDGE),
            pa.Table.from_pylist(failed, schema=FAILED),
        )

    def _request(self, key: str, row: dict[str, Any]) -> TextRequest:
        """What the engine is asked to write for `row` of the plan."""
        return TextRequest(
            key, row["kind"], row["group"], row["entity_id"], row["prompt_token_ids"], row["max_tokens"]
        )

    def progress(self) -> WorkerProgress:
        """Totals since the start."""
        with self._lock:
            totals = dict(self._totals)
        state = self._text_engine.state
        return WorkerProgress(
            num_rows=totals.get("rows", 0),
            num_output_tokens=totals.get("output", 0),
            num_decode_steps=totals.get("steps", 0),
            num_draft_tokens=totals.get("draft", 0),
            num_accepted_tokens=totals.get("accepted", 0),
            num_relaxed_tokens=totals.get("relaxed", 0),
            sources=state.sources,
            num_decoded_tokens=state.num_output_tokens,
            num_engine_steps=state.num_steps,
            drafter_sec=state.drafter_sec,
            num_running=state.num_running,
            price=state.price,
        )

    def close(self) -> dict[str, Any] | None:
        """Stop the engine's thread; what the drafter has learned."""
        learned: dict[str, Any] | None = self._engine.call(lambda engine: engine.calibration())
        self._engine.close()
        return learned

    def _note(self, text: WrittenText) -> None:
        """Called in the engine's thread."""
        with self._lock:
            self._totals.update(
                rows=1,
                output=len(text.token_ids),
                steps=text.num_decode_steps,
                draft=text.num_draft_tokens,
                accepted=text.num_accepted_tokens,
                relaxed=text.num_relaxed_tokens,
            )

    def _answer(self, row: dict[str, Any], text: WrittenText) -> Answer | None:
        json_output = self._spec.settings.knowledge.prompt(row["kind"]).json_output
        may_reason = json_output is None or not json_output.constrained
        return self._answers.read(row["prompt"], text.text, may_reason)

    def _knowledge_row(self, row: dict[str, Any], text: WrittenText, answer: Answer) -> dict[str, Any]:
        spec, settings = self._spec, self._spec.settings
        # Where reasoning came first, the prefix was its beginning.
        prefix = "" if answer.num_reasoning_tokens else row["answer_prefix"] or ""
        whole_text = prefix + answer.text
        return {
            "entity_id": row["entity_id"],
            "kind": row["kind"],
            "group": row["group"],
            "text": whole_text,
            "parsed": parse_output(settings.knowledge, row["kind"], whole_text),
            "token_ids": text.token_ids,
            "prompt_hash": row["prompt_hash"],
            "num_prompt_tokens": len(row["prompt_token_ids"]),
            "num_output_tokens": len(text.token_ids),
            "num_draft_tokens": text.num_draft_tokens,
            "num_accepted_tokens": text.num_accepted_tokens,
            "num_relaxed_tokens": text.num_relaxed_tokens,
            "num_decode_steps": text.num_decode_steps,
            "num_reasoning_tokens": answer.num_reasoning_tokens,
            "num_control_tokens": answer.num_control_tokens,
            "finish_reason": text.finish_reason,
            "model": settings.model.name,
            "model_revision": spec.model_revision,
            "knowledge": settings.knowledge.name,
            "acceptance": settings.acceptance_label_of(row["kind"], row["group"]),
            "datastore_version": spec.datastore_version,
            "fingerprint": spec.text_fingerprint or spec.fingerprint,
            "run_id": spec.run_id,
            "generated_at": datetime.now(UTC),
            "history_cutoff": row["history_cutoff"],
            "shared_from": None,
        }


def _still_reasoning(row: dict[str, Any], text: WrittenText) -> str:
    kind = row["kind"]
    return (
        f"the model was still reasoning when its text of {len(text.token_ids)} tokens ended "
        f"({text.finish_reason}); give it a larger knowledge.{kind}.max_tokens, or switch its reasoning off "
        "in model.chat_template_args"
    )


def _failed_row(row: dict[str, Any], reason: str) -> dict[str, Any]:
    return {
        "stage": "generate",
        "entity_id": row["entity_id"],
        "kind": row["kind"],
        "reason": " ".join(reason.split()),
    }


def _earlier_texts(parts: list[str]) -> list[EarlierText]:
    if not parts:
        return []
    columns = ["kind", "entity_id", "token_ids"]
    own = pc.is_null(pc.field("shared_from"))  # a text that several rows share is taught once
    dataset = parquet_dataset([data_path(part) for part in parts], KNOWLEDGE)
    rows = dataset.to_table(columns=columns, filter=own).to_pylist()
    return [EarlierText(row["kind"], row["entity_id"], row["token_ids"]) for row in rows]
