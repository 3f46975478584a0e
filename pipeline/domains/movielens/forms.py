"""The published forms of MovieLens, and how each spells its rows. The form is recognized, not configured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.domains.movielens.genres import FLAG_COLUMNS, genres_of_flags, genres_of_text
from pipeline.domains.raw.failures import FailureLog
from pipeline.domains.raw.files import RawFile, RawFormat
from pipeline.errors import DataError

INTERACTION_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
USER_COLUMNS = ("user_id", "age", "gender", "occupation")
LATIN_1 = "latin-1"

# Adds `categories` to rows of items.
AddCategories = Callable[[pa.Table, FailureLog], pa.Table]


@dataclass(frozen=True)
class MovieLensFiles:
    """The raw files of one dataset. Without a user file users are those who rated something."""

    interactions: RawFile
    items: RawFile
    users: RawFile | None
    add_categories: AddCategories


@dataclass(frozen=True)
class MovieLensForm:
    """A published form: recognized by files (glob patterns) that are there and files that are not."""

    name: str
    present: tuple[str, ...]
    open: Callable[[Path], MovieLensFiles]
    absent: tuple[str, ...] = ()

    def matches(self, folder: Path) -> bool:
        """Whether `folder` holds this form."""
        return all(any(folder.glob(name)) for name in self.present) and not any(
            any(folder.glob(name)) for name in self.absent
        )


def _split_at(separator: str) -> AddCategories:
    return lambda rows, log: genres_of_text(rows, separator)


def _open_100k(folder: Path) -> MovieLensFiles:
    ratings = RawFormat("\t", INTERACTION_COLUMNS)
    item_columns = ("item_id", "title", "release_date", "video_release_date", "imdb_url", *FLAG_COLUMNS)
    items = RawFormat("|", item_columns, fallback_encoding=LATIN_1)
    users = RawFormat("|", (*USER_COLUMNS, "zip_code"), fallback_encoding=LATIN_1)
    return MovieLensFiles(
        RawFile(folder / "u.data", ratings, INTERACTION_COLUMNS),
        RawFile(folder / "u.item", items, ("item_id", "title", "release_date", *FLAG_COLUMNS)),
        RawFile(folder / "u.user", users, USER_COLUMNS),
        genres_of_flags,
    )


def _open_1m(folder: Path) -> MovieLensFiles:
    user_columns = ("user_id", "gender", "age", "occupation", "zip_code")
    users = RawFormat("::", user_columns, fallback_encoding=LATIN_1)
    return _open_dat(folder, LATIN_1, RawFile(folder / "users.dat", users, USER_COLUMNS))


def _open_10m(folder: Path) -> MovieLensFiles:
    return _open_dat(folder, None, None)


def _open_dat(folder: Path, fallback_encoding: str | None, users: RawFile | None) -> MovieLensFiles:
    item_columns = ("item_id", "title", "genres")
    items = RawFormat("::", item_columns, fallback_encoding=fallback_encoding)
    ratings = RawFile(folder / "ratings.dat", RawFormat("::", INTERACTION_COLUMNS), INTERACTION_COLUMNS)
    return MovieLensFiles(ratings, RawFile(folder / "movies.dat", items, item_columns), users, _split_at("|"))


def _open_csv(folder: Path) -> MovieLensFiles:
    csv = RawFormat(",", names={"userId": "user_id", "movieId": "item_id"}, quoted=True)
    ratings = RawFile(folder / "ratings.csv", csv, INTERACTION_COLUMNS)
    items = RawFile(folder / "movies.csv", csv, ("item_id", "title", "genres"))
    return MovieLensFiles(ratings, items, None, _split_at("|"))


def _open_atomic(folder: Path) -> MovieLensFiles:
    """RecBole's atomic files: tab-separated, a header such as `item_id:token`."""
    names = {"movie_title": "title", "release_year": "year", "class": "genres", "genre": "genres"}
    atomic = RawFormat("\t", names=names)
    users = _only(folder, "*.user") if any(folder.glob("*.user")) else None
    return MovieLensFiles(
        RawFile(_only(folder, "*.inter"), atomic, INTERACTION_COLUMNS),
        RawFile(_only(folder, "*.item"), atomic, ("item_id", "title", "genres"), optional=("year",)),
        RawFile(users, atomic, USER_COLUMNS) if users else None,
        _split_at(" "),
    )


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: one file {pattern} is needed, found {names}")
    return found[0]


FORMS = (
    MovieLensForm("ml-100k", ("u.data", "u.item", "u.user"), _open_100k),
    MovieLensForm("ml-1m", ("ratings.dat", "movies.dat", "users.dat"), _open_1m),
    MovieLensForm("ml-10M100K", ("ratings.dat", "movies.dat"), _open_10m, absent=("users.dat",)),
    MovieLensForm("ml-latest/20m/25m/32m", ("ratings.csv", "movies.csv"), _open_csv),
    MovieLensForm("RecBole", ("*.inter", "*.item"), _open_atomic),
)
