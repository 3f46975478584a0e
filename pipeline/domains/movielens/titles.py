"""Titles as MovieLens writes them, turned into titles as people write them.

`Matrix, The (1999)` is "The Matrix" of 1999. Foreign articles move too, also inside the brackets that
hold another title: `City, The (Ville, La) (1995)` is "The City (La Ville)". English words that are
articles elsewhere ("I", "As") stay where they are, because "Me Myself, I" is no Italian title.
"""

import re

_MEDIUM = re.compile(r"\s*\((?:V|TV|VG)\)$")
_YEAR = re.compile(r"\s*\(([12]\d{3})(?:\s*[-\u2013]\s*(?:[12]\d{3})?)?\)$")  # also 1994-1998 and 2007-
_ARTICLES = (
    "The|A|An"  # English
    "|Le|La|Les|L'|Un|Une"  # French
    "|El|Los|Las|Una"  # Spanish
    "|Il|Lo|Gli"  # Italian
    "|Der|Die|Das|Ein|Eine"  # German
    "|De|Het|Een|Den|Det|En|Ett"  # Dutch, Danish, Swedish, Norwegian
    "|O|Os"  # Portuguese
)
_TRAILING_ARTICLE = re.compile(
    r"^(?P<aka>\s*(?:a\.?k\.?a\.?:?\s+)?)(?P<name>\S.*), (?P<article>" + _ARTICLES + r")(?P<end>\s*)$"
)
# A title, or another title in brackets: a run without brackets, at the start or just inside one.
_SEGMENT = re.compile(r"(?:^|(?<=\())[^()]+")


def parse_title(raw: str) -> tuple[str, str | None]:
    """The title and the year (four digits) that `raw` names; no year if there is none.

    The title is empty if `raw` holds a year only, or nothing.
    """
    text = _MEDIUM.sub("", raw.strip())
    match = _YEAR.search(text)
    year = match.group(1) if match else None
    title = _MEDIUM.sub("", text[: match.start()] if match else text)
    return _SEGMENT.sub(lambda segment: _article_first(segment.group()), title).strip(), year


def _article_first(segment: str) -> str:
    match = _TRAILING_ARTICLE.match(segment)
    if not match:
        return segment
    joint = "" if match["article"].endswith("'") else " "
    return f"{match['aka']}{match['article']}{joint}{match['name']}{match['end']}"
