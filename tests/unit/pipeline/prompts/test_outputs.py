import json
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.prompts.outputs import json_schema, parse_output, structured_kinds
from pipeline.settings import KnowledgeSettings

CONFIGS = Path(__file__).resolve().parents[4] / "configs" / "knowledge"
GOOD = {"summarization": "films of the sea", "reasoning": "he rates them high"}


def load(name) -> KnowledgeSettings:
    return KnowledgeSettings.model_validate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


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
