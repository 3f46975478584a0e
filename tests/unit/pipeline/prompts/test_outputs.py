import json
import time

import jsonschema
import pytest

from jobs.config import load_settings
from pipeline.prompts.outputs import (
    Answer,
    AnswerReader,
    json_schema,
    opened_reasoning,
    parse_output,
    structured_kinds,
)
from pipeline.settings import KnowledgeSettings

GOOD = {"summarization": "films of the sea", "reasoning": "he rates them high"}


def load(name) -> KnowledgeSettings:
    return load_settings("generate", [f"knowledge={name}"]).knowledge


@pytest.fixture(scope="module")
def rlmrec():
    return load("rlmrec")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD, indent=2)}\n```",
        f"Sure! {json.dumps(GOOD | {'more': 1})} Anything else?",
        f"{{not json}} {json.dumps(GOOD)}",
    ],
)
def test_the_object_is_found_and_reduced_to_its_keys(rlmrec, text):
    assert json.loads(parse_output(rlmrec, "user", text)) == GOOD


@pytest.mark.parametrize(
    "text",
    ["", "plain prose", json.dumps(GOOD)[:-4],
     '{"summarization": "x"}', '{"summarization": "x", "reasoning": " "}',
     '{"summarization": "x", "reasoning": ["y"]}', "[1]", "null", "{" * 100_000, '{"a":' * 100_000],
)  # fmt: skip
def test_what_does_not_parse_is_malformed(rlmrec, text):
    started = time.monotonic()
    assert parse_output(rlmrec, "item", text) is None
    assert time.monotonic() - started < 5


def test_values_become_one_line_and_lone_surrogates_leave(rlmrec):
    text = '{"summarization": "a\\nb", "reasoning": "\\ud800 c"}'
    assert json.loads(parse_output(rlmrec, "user", text)) == {"summarization": "a b", "reasoning": "? c"}


@pytest.mark.parametrize(
    ("name", "structured"), [("kar", False), ("once", False), ("trawl", False), ("rlmrec", True)]
)
def test_only_structured_sets_are_parsed(name, structured):
    knowledge = load(name)
    for kind in ("user", "item"):
        assert (kind in structured_kinds(knowledge)) is structured
        assert (parse_output(knowledge, kind, json.dumps(GOOD)) is not None) is structured


def test_what_the_schema_allows_is_what_the_parser_takes(rlmrec):
    schema = json_schema(rlmrec.user.json_output)
    assert schema["required"] == list(schema["properties"]) == list(GOOD)
    assert not schema["additionalProperties"]
    jsonschema.validate(GOOD, schema)
    for wrong in (GOOD | {"more": "x"}, GOOD | {"reasoning": ""}, {"summarization": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.fixture(scope="module")
def reader(tokenizer):
    return AnswerReader(tokenizer)


@pytest.mark.parametrize(
    ("end_of_prompt", "text", "answer"),
    [
        ("assistant\n", "A film of the sea.", "A film of the sea."),
        ("assistant\n<think>\n", "He likes\nwar.\n</think>\n\nA film.", "A film."),
        ("assistant\n<think>\n\n</think>\n\n", "A film.", "A film."),  # switched off by the template
        ("assistant\n", "<think>\nHm.</think>A film.", "A film."),  # opened by the model
        ("assistant\n", "Hm.</think> one <think>more</think> A film.", "A film."),
        ("assistant\n", "[THINK]Hm.[/THINK]A film.", "A film."),
        (
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>A film.",
            "A film.",
        ),
        ("assistant\n<think>\n", "He likes war films, and", None),
        ("assistant\n", "<think> He likes war films, and", None),
        ("assistant\n", "<think>a</think> <think> He likes war films, and", None),
        ("<|start|>assistant", "<|channel|>analysis<|message|>He likes", None),
        ("assistant\n<think>\n", "Hm.</think>", ""),  # counted as an empty text
    ],
)
def test_the_answer_is_what_stands_behind_the_reasoning(reader, end_of_prompt, text, answer):
    found = reader.read(f"Likes?{end_of_prompt}", text)
    assert (found and found.text) == answer
    if found is not None:
        assert (found.num_reasoning_tokens > 0) == (text != answer)


def test_tokens_of_the_reasoning_are_counted(reader, tokenizer):
    reasoning = "He likes war.</think>"
    expected = len(tokenizer(reasoning, add_special_tokens=False)["input_ids"])
    assert reader.read("<think>", f"{reasoning}\nA film.") == Answer("A film.", expected, 0)


def test_a_grammar_that_allows_nothing_but_the_answer_allows_no_reasoning(reader):
    text = '{"a": "b"}'
    assert reader.read("assistant\n<think>\n", text, may_reason=False) == Answer(text, 0, 0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("A film.", 0),
        ("A film.<|im_end|>\n<|im_start|>user\nMore?", 2),
        ("A film.<|endoftext|>", 1),
        ("A film. [INST] Next", 1),  # no token of this model, yet a turn of other chat formats
        ("Ratings < 3 and [sic]", 0),
    ],
)
def test_control_tokens_are_counted_in_the_answer(reader, text, number):
    assert reader.read("assistant\n", text) == Answer(text, 0, number)


def test_reasoning_is_open_if_the_prompt_ends_with_its_marker():
    assert opened_reasoning("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened_reasoning("about <think> tags?<|im_end|>\n<|im_start|>assistant\n") is None
    assert opened_reasoning("assistant\n<think>\n\n</think>\n\n") is None
