"""A column that files lack, said so that a misspelled name is seen."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

MAX_SHOWN = 30
MAX_COMPARED = 1000
MAX_NAME_CHARACTERS = 60


def there_are(name: str, found: Iterable[str]) -> str:
    """What stands where column `name` was looked for: `there are a, b; did you mean 'b'?`."""
    names = [shortened(other) for other in islice(dict.fromkeys(found), MAX_COMPARED)]
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"there are {listed(names)}{hint}"


def listed(names: Sequence[str]) -> str:
    """The first of `names`, each cut to a readable length."""
    shown = [shortened(name) for name in names[:MAX_SHOWN]]
    return ", ".join([*shown, "…"] if len(names) > MAX_SHOWN else shown)


def shortened(text: str, max_characters: int = MAX_NAME_CHARACTERS) -> str:
    """`text`, cut if it is longer than `max_characters`."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"
