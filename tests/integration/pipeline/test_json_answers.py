"""Constrained JSON answers from the real engine, together with drafting and the relaxed rule."""

import json

import pytest

from jobs.config import load_settings
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.engine import TextEngine, TextRequest
from pipeline.models.tokenizer import load_tokenizer
from pipeline.prompts.outputs import parse_output

pytestmark = pytest.mark.slow  # three engines

TITLES = [
    "Quiet Harbor", "The Long Orchard", "Seven Lanterns", "Night Ferry", "A Winter Map", "Copper Sky",
    "The Glass Mill", "Paper Wolves", "Salt and Ember", "The Ninth Door", "Low Tide", "Kingfisher",
]  # fmt: skip
KEYS = {"summarization", "reasoning"}


def spec_of(smollm2, drafter) -> WorkerSpec:
    overrides = [
        "knowledge=rlmrec",
        f"drafter={drafter}",
        "model=smollm2-135m",
        "engine=cpu",
        "engine.cpu_kv_cache_gib=1",
        "model.max_model_len=512",
        *(f"knowledge.{kind}.json_output.constrained=true" for kind in ("user", "item")),
    ]
    settings = load_settings("generate", overrides)
    return WorkerSpec(settings, str(smollm2), "1", "0", "f", "run", None, None, "")


def requests(smollm2) -> list[TextRequest]:
    tokenizer = load_tokenizer(str(smollm2))
    asked = 'Answer with one JSON object: {"summarization": "who would enjoy it", "reasoning": "why"}.'
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"The movie {title}. Which users would enjoy it? {asked}"}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for title in TITLES
    ]
    return [TextRequest(str(n), "item", "all", str(n), ids, 160) for n, ids in enumerate(prompts)]


def write(engine: TextEngine, asked: list[TextRequest], at_once: int):
    written = []
    for first in range(0, len(asked), at_once):
        for request in asked[first : first + at_once]:
            engine.add(request)
        while not engine.is_idle:
            written += engine.step()
    return written


@pytest.mark.parametrize("drafter", ["laser", "ngram", "suffix"])
def test_every_answer_that_ends_is_the_json_asked_for(smollm2, drafter):
    if drafter == "suffix":
        pytest.importorskip("arctic_inference")
    spec = spec_of(smollm2, drafter)
    texts = write(TextEngine(spec), requests(smollm2), 4)
    assert len(texts) == len(TITLES)
    for text in texts:
        assert text.text.startswith('{"summarization":"')
        if text.finish_reason == "stop":
            assert set(json.loads(text.text)) == KEYS
            assert parse_output(spec.settings.knowledge, "item", text.text) is not None
    assert sum(text.finish_reason == "stop" for text in texts) >= len(TITLES) // 2
    assert sum(text.num_accepted_tokens for text in texts) > 0
    if drafter == "laser":
        assert sum(text.num_relaxed_tokens for text in texts) > 0, "the relaxed rule had no say"
    print(drafter, *texts, sep="\n")  # noqa: T201  shown by -s
