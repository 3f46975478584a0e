"""A column that files lack, said so that a misspelled name is seen."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SHOWN = 30


def there_are(name: str, found: Iterable[str]) -> str:
    """What stands where column `name` was looked for: `there are a, b; did you mean 'b'?`."""
    names = list(dict.fromkeys(found))
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"there are {', '.join(names[:MAX_SHOWN])}{hint}"
