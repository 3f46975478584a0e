"""Answers that should be JSON: parsed, and told from those that are not."""

import json
from typing import Any

from pipeline.settings import KINDS, JsonOutputSettings, Kind, KnowledgeSettings

MAX_STARTS = 8  # opening braces that are tried; a text of braces only must not take quadratic time

_decoder = json.JSONDecoder()


def parse_output(knowledge: KnowledgeSettings, kind: Kind, text: str) -> str | None:
    """The answer's JSON object with the expected keys, in their order, as one line; None if malformed.

    Also None where the prompt set asks for plain text (see `structured_kinds`). The object may stand in a
    code fence or between other words; its other keys are dropped, and a value must be a text that is not
    blank.
    """
    settings = knowledge.prompt(kind).json_output
    if settings is None:
        return None
    for found in _objects(text):
        values = {key: _single_line(found.get(key)) for key in settings.keys}
        if all(values.values()):
            return json.dumps(values, ensure_ascii=False)
    return None


def structured_kinds(knowledge: KnowledgeSettings) -> frozenset[Kind]:
    """The kinds whose answers can be malformed."""
    return frozenset(kind for kind in KINDS if knowledge.prompt(kind).json_output is not None)


def json_schema(json_output: JsonOutputSettings) -> dict[str, Any]:
    """The JSON schema of what `parse_output` takes; for decoding that allows nothing else."""
    return {
        "type": "object",
        "properties": {key: {"type": "string", "minLength": 1} for key in json_output.keys},
        "required": list(json_output.keys),
        "additionalProperties": False,
    }


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that begin at one of the first braces of `text`."""
    objects: list[dict[str, Any]] = []
    start = text.find("{")
    for _ in range(MAX_STARTS):
        if start < 0:
            break
        try:
            value, _ = _decoder.raw_decode(text, start)
            objects.append(value)
        except (ValueError, RecursionError):
            pass
        start = text.find("{", start + 1)
    return objects


def _single_line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return " ".join(value.encode("utf-8", "replace").decode().split())
