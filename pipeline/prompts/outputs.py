"""What a model wrote: the answer is told from the reasoning before it, and JSON from what is none."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.models.tokenizer import control_tokens
from pipeline.prompts.cleaning import DataCleaner
from pipeline.settings import KINDS, JsonOutputSettings, Kind, KnowledgeSettings

MAX_STARTS = 8  # opening braces that are tried; a text of braces only must not take quadratic time

# How models open and close what they reason before the answer. The names of tokens, not of a switch: whatever
# turns reasoning on or off in a chat template, it is seen in the prompt or in the text.
REASONING = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)

_decoder = json.JSONDecoder()

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """The text that a model wrote, without its reasoning. Control tokens in it are visible, and counted."""

    text: str
    num_reasoning_tokens: int
    num_control_tokens: int


class AnswerReader:
    """Finds the answers in what one model writes."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._cleaner = DataCleaner(control_tokens(tokenizer))

    def read(self, prompt: str, text: str, may_reason: bool = True) -> Answer | None:
        """The answer in `text`, which follows `prompt`; None if the text ends within the reasoning.

        `text` must show special tokens. What stands before the last closing marker is reasoning, whether or
        not an opening one was seen. `may_reason` is false where a grammar allows nothing but the answer.
        """
        reasoning, answer = "", text
        for opening, closing in REASONING if may_reason else ():
            before, found, after = answer.rpartition(closing)
            is_open = opened_reasoning(prompt) == opening and not found
            if is_open or after.lstrip().startswith(opening):
                return None
            if found:
                reasoning, answer = f"{reasoning}{before}{closing}", after.lstrip()
        num_reasoning = 0
        if reasoning:
            num_reasoning = len(self._tokenizer(reasoning, add_special_tokens=False)["input_ids"])
        return Answer(answer, num_reasoning, self._cleaner.count_control_tokens(answer))


def opened_reasoning(prompt: str) -> str | None:
    """The marker with which the generation prompt at the end of `prompt` opens reasoning; None: it does not.

    A template whose reasoning is switched off opens none, or writes an empty one and closes it.
    """
    end = prompt.rstrip()
    return next((opening for opening, _ in REASONING if end.endswith(opening)), None)


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
