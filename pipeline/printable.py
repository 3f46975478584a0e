"""Text from data as a terminal may show it, and numbers of things as English counts them."""

import re

# Control characters (ESC begins a terminal's commands), separators of lines and paragraphs, marks that
# reorder text, and surrogates, which no encoding writes.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """`text` with such characters, other than those of `keep`, written as `\\x1b` or `\\u202e`."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 shard`, `2,000 shards`; `many` where an s behind `one` is not enough: `2 shards are`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
