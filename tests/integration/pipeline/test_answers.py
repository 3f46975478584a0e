"""What becomes of the real engine's texts: they end with the turn; endless reasoning fails its row."""

import json
import shutil

import pyarrow as pa
import pytest

from jobs.config import load_settings
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.worker import KnowledgeWorker
from pipeline.models.tokenizer import load_tokenizer
from pipeline.schemas import PLAN
from tests.generation import make_plan

pytestmark = pytest.mark.slow  # an engine
QUESTIONS = ["What is the capital of France?", "Say hello.", "Name one color.", "Is water wet?"]
REASONING = "3"
MAX_TOKENS = 48


@pytest.fixture
def contradictory(smollm2, tmp_path):
    """The embedded model, whose files name another token as the end than the one that closes its turns."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2, folder)
    ends = {"config.json": 0, "generation_config.json": 0, "tokenizer_config.json": "<|endoftext|>"}
    for name, end in ends.items():
        content = json.loads((folder / name).read_text())
        key = "eos_token" if isinstance(end, str) else "eos_token_id"
        (folder / name).write_text(json.dumps(content | {key: end}))
    return folder


def planned(folder) -> pa.Table:
    """A row for each question; the prompt of `REASONING` leaves a reasoning marker open."""
    tokenizer = load_tokenizer(str(folder))
    rows = make_plan(1, len(QUESTIONS)).to_pylist()
    for row, question in zip(rows, QUESTIONS, strict=True):
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        row["prompt"] = prompt + ("<think>\n" if row["entity_id"] == REASONING else "")
        row["prompt_token_ids"] = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        row["max_tokens"] = MAX_TOKENS
    return pa.Table.from_pylist(rows, schema=PLAN)


def test_texts_end_with_the_turn_and_open_reasoning_fails_its_row(contradictory, tmp_path):
    overrides = ["model=smollm2-135m", "engine=cpu", "engine.cpu_kv_cache_gib=1", "model.max_model_len=512"]
    settings = load_settings("generate", overrides)
    spec = WorkerSpec(settings, str(contradictory), "1", "0", "f", "run", None, None, str(tmp_path / "log"))
    worker = KnowledgeWorker(spec, [])
    result = worker.run_shard("s", planned(contradictory))
    worker.close()

    texts = {row["entity_id"]: row for row in result.knowledge.to_pylist()}
    assert texts.keys() == {"0", "1", "2"}
    assert "Paris" in texts["0"]["text"]
    for row in texts.values():
        assert "<|" not in row["text"] and row["num_control_tokens"] == row["num_reasoning_tokens"] == 0
    assert [row["finish_reason"] for row in texts.values()].count("stop") >= 2
    assert texts["0"]["finish_reason"] == "stop" and texts["0"]["token_ids"][-1] == 2
    [failed] = result.failed.to_pylist()
    assert failed["entity_id"] == REASONING
    assert failed["reason"].startswith("the model was still reasoning when its text of")
    assert "knowledge.item.max_tokens" in failed["reason"]
