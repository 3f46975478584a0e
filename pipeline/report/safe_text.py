"""What a model or a raw file wrote, made harmless to read: no control characters, no reversed lines."""

import re

# Controls other than tab and line feed, and those that turn the direction of what follows.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
SPECIAL = re.compile(r"([\\`*\[\]<|&]|(?<![^\W_])_|_(?![^\W_])|~(?=~))")  # within a line
REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """`text` with control characters replaced by one that is seen."""
    return CONTROLS.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`visible` text without line breaks."""
    return " ".join(visible(text).split())


def markdown(text: str) -> str:
    """`text` as Markdown that shows it and means nothing else; one line."""
    return SPECIAL.sub(r"\\\1", one_line(text))


def fenced(text: str) -> str:
    """`text` as a code block that it cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text).strip(chr(10))}\n{fence}"
