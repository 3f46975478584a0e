"""Genres of a film, as each form spells them."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import FailureLog, reject

# The order of the flags in ml-100k's u.item, as u.genre lists them.
FLAGGED_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
FLAG_COLUMNS = tuple(f"genre_{position}" for position in range(len(FLAGGED_GENRES)))
NO_GENRE = ("", "unknown", "(no genres listed)")


def genres_of_text(rows: pa.Table, separator: str) -> pa.Table:
    """`rows` with `categories` (list of strings) from the column `genres`, split at `separator`."""
    lists = [_known(text.split(separator)) for text in rows["genres"].to_pylist()]
    return rows.append_column("categories", pa.array(lists, pa.list_(pa.string())))


def _known(genres: list[str]) -> list[str]:
    names = dict.fromkeys(genre.strip() for genre in genres)
    return [genre for genre in names if genre not in NO_GENRE]


def genres_of_flags(rows: pa.Table, log: FailureLog) -> pa.Table:
    """`rows` with `categories` from FLAG_COLUMNS, each 0 or 1; other values make a bad row."""
    flags = pc.binary_join_element_wise(*(rows[column] for column in FLAG_COLUMNS), "|")
    rows = rows.append_column("flags", flags)
    wrong = pc.invert(pc.match_substring_regex(flags, "^[01]([|][01])*$"))
    rows = reject(rows, wrong, "genre flags '{flags}' are not all 0 or 1", log)
    lists = [_flagged(text.split("|")) for text in rows["flags"].to_pylist()]
    return rows.append_column("categories", pa.array(lists, pa.list_(pa.string())))


def _flagged(flags: list[str]) -> list[str]:
    return _known([genre for genre, flag in zip(FLAGGED_GENRES, flags, strict=True) if flag == "1"])
