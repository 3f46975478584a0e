"""English words as prompts write them."""

import re

_TAKES_ES = re.compile(r"(x|z|ch|sh)$", re.IGNORECASE)
_TAKES_IES = re.compile(r"(?<=[b-df-hj-np-tv-z])y$", re.IGNORECASE)


def plural(word: str) -> str:
    """`word` for several: movies, stories, dishes. A word that ends in s stays as it is: news, series."""
    if word.lower().endswith("s"):
        return word
    if _TAKES_IES.search(word):
        return f"{word[:-1]}ies"
    return f"{word}es" if _TAKES_ES.search(word) else f"{word}s"
