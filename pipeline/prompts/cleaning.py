"""Data arrives in a prompt as data: one line, of bounded length, without the model's control tokens.

A chat template renders a string and the tokenizer then parses control tokens wherever they stand, so
a title that contains `<|im_end|>` would end the user's turn. Here such a string gets a space after
its first character (`< |im_end|>`): it stays readable, is no control token of any tokenizer, and no
normalizer glues it together again (as some do with zero-width characters). `chat.PromptEncoder`
counts the control tokens of every finished prompt as a second line of defence.
"""

import re
import unicodedata
from collections.abc import Iterable

MAX_TITLE_CHARS = 200
MAX_VALUE_CHARS = 500

# Markers of common chat formats: they mean something to a model even where its tokenizer does not
# treat them as special.
_CHAT_MARKERS = (
    r"<[|\uff5c][^<>]{0,40}?[|\uff5c]>|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]"
    r"|</?(?:s|think)>|<(?:start|end)_of_turn>"
)
_MARKER_STARTS = "<["
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Invisible characters that can hide or reorder text. Joiners stay: scripts and emoji need them.
_INVISIBLE = re.compile(r"[\u00ad\u200b\u2060\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
# Breaking one marker may complete another around it; more rounds than this are only reachable by
# token sets that contain a lone "< ", which the count of control tokens then catches.
_MAX_BREAKING_ROUNDS = 4


def shortened(text: str, max_chars: int) -> str:
    """`text`, or its beginning and an ellipsis, together at most `max_chars` characters."""
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"


class DataCleaner:
    """Cleans the text of one model's prompts. `control_tokens` are that model's, as they are written."""

    def __init__(self, control_tokens: Iterable[str] = ()) -> None:
        # Longest first, so that the longest of two overlapping tokens is the one that is seen.
        tokens = sorted({token for token in control_tokens if len(token) > 1}, key=lambda t: (-len(t), t))
        self._pattern = re.compile("|".join([*map(re.escape, tokens), _CHAT_MARKERS]))
        self._starts = frozenset(_MARKER_STARTS) | {token[0] for token in tokens}

    def clean(self, text: str | None, max_chars: int = MAX_TITLE_CHARS) -> str:
        """`text` on one line, at most `max_chars` characters (before control tokens are broken up)."""
        text = _INVISIBLE.sub("", _CONTROL_CHARACTERS.sub(" ", text or ""))
        text = " ".join(text.split())
        return self._without_control_tokens(shortened(text, max_chars))

    def finds_control_token(self, text: str) -> str | None:
        """The first control token or chat marker in `text`, None if there is none."""
        found = self._pattern.search(text)
        return found[0] if found else None

    def count_control_tokens(self, text: str) -> int:
        """How many control tokens and chat markers stand in `text`."""
        return 0 if self._starts.isdisjoint(text) else sum(1 for _ in self._pattern.finditer(text))

    def _without_control_tokens(self, text: str) -> str:
        if not text.isascii():
            # A tokenizer that normalizes its input would see the control token in the folded form.
            folded = unicodedata.normalize("NFKC", text)
            text = folded if self._pattern.search(folded) else text
        for _ in range(_MAX_BREAKING_ROUNDS):
            if self._starts.isdisjoint(text) or not self._pattern.search(text):
                break
            text = self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text
