"""English words as prompts write them."""

import re

_TAKES_ES = re.compile(r"(x|z|ch|sh|ss)$", re.IGNORECASE)
_TAKES_IES = re.compile(r"(?<=[b-df-hj-np-tv-z])y$", re.IGNORECASE)
_HAS_NO_PLURAL = re.compile(
    r"(wear|clothing|apparel|merchandise|equipment|furniture|jewelry|jewellery|luggage|hardware|software"
    r"|music|media|content|food|information)$",
    re.IGNORECASE,
)


def plural(word: str) -> str:
    """`word` for several: movies, stories, dishes, dresses.

    A word that ends in one s stays as it is (news, series), and so does one that has no plural (footwear).
    """
    if _HAS_NO_PLURAL.search(word) or re.search(r"(?<!s)s$", word, re.IGNORECASE):
        return word
    if _TAKES_IES.search(word):
        return f"{word[:-1]}ies"
    return f"{word}es" if _TAKES_ES.search(word) else f"{word}s"
