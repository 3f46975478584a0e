"""The real engine raises on single prompts: they fail with its reason, the rest of their shard is written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.config import load_settings
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.dispatch import run_shards
from pipeline.generate.worker import KnowledgeWorker
from pipeline.models.tokenizer import load_tokenizer
from pipeline.schemas import PLAN
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import read_knowledge
from tests.generation import FINGERPRINT, make_plan

pytestmark = pytest.mark.slow  # Ray and an engine
MAX_MODEL_LEN = 512
MAX_TOKENS = 8
TOO_LONG, POISONED = "1", "5"


class PoisonedWorker(KnowledgeWorker):
    """Its engine is the real one, apart from one prompt on which it raises."""

    def _build(self, finished_parts):
        engine = super()._build(finished_parts)
        add = engine.add

        def add_unless_poisoned(request):
            if request.entity_id == POISONED:
                raise RuntimeError("planted\nin the engine")
            add(request)

        engine.add = add_unless_poisoned
        return engine


def written_plan(layout, smollm2):
    """Two shards of four short prompts; that of `TOO_LONG` is longer than the model's context."""
    tokenizer = load_tokenizer(str(smollm2))
    rows = make_plan(num_shards=2, rows_per_shard=4).to_pylist()
    for row in rows:
        tokens = list(tokenizer.encode(f"The movie number {row['entity_id']} is about"))
        long = row["entity_id"] == TOO_LONG
        row["prompt_token_ids"] = tokens * MAX_MODEL_LEN if long else tokens
        row["max_tokens"] = MAX_TOKENS
    plan = pa.Table.from_pylist(rows, schema=PLAN)
    write_parquet(plan, layout.plan)
    return plan


def test_a_prompt_that_the_engine_refuses_fails_alone(smollm2, tmp_path):
    layout = RunLayout(tmp_path / "movielens" / "runs" / "run")
    plan = written_plan(layout, smollm2)
    overrides = ["model=smollm2-135m", "engine=cpu", "engine.cpu_kv_cache_gib=1", "cluster.num_workers=1"]
    settings = load_settings("generate", [*overrides, f"model.max_model_len={MAX_MODEL_LEN}"])
    spec = WorkerSpec(
        settings, str(smollm2), "1", "0", FINGERPRINT, "run", None, None, run_log=str(layout.log)
    )
    outcome = run_shards(plan, spec, layout, PoisonedWorker)
    assert outcome.unfinished == {} and (outcome.num_rows, outcome.num_failed) == (6, 2), (
        layout.log.read_text()
    )
    failed = {row["entity_id"]: row for row in pq.read_table(layout.failed).to_pylist()}
    assert failed.keys() == {TOO_LONG, POISONED}
    assert failed[POISONED]["reason"] == "RuntimeError: planted in the engine"
    assert str(MAX_MODEL_LEN) in failed[TOO_LONG]["reason"] and "\n" not in failed[TOO_LONG]["reason"]
    assert {row["stage"] for row in failed.values()} == {"generate"}
    texts = read_knowledge(layout).to_pylist()
    assert {row["entity_id"] for row in texts} == set("01234567") - failed.keys()
    assert all(0 < row["num_output_tokens"] <= MAX_TOKENS for row in texts)
