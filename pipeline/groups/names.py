"""Group names, which become folder names."""

import hashlib
import re
import unicodedata

MAX_NAME_CHARACTERS = 64


def group_name(text: str) -> str:
    """A safe folder name for `text`: only `a-z`, `0-9` and single inner hyphens, at most 64 characters.

    Accents are dropped, every run of other characters becomes one hyphen: "Children's" is `children-s`,
    "Sci-Fi" is `sci-fi`. A text that leaves nothing, such as one in another script, or too much,
    is told from others by eight hexadecimal digits of its sha256.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if name and len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = name[: MAX_NAME_CHARACTERS - len(digest) - 1].strip("-") or "group"
    return f"{kept}-{digest}"
