"""Each user's ratings before the cutoff: sorted once, then sliced by offsets."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.prompts.cleaning import MAX_VALUE_CHARS, DataCleaner, shortened
from pipeline.schemas import TIMESTAMP

MAX_ATTRIBUTES = 20  # of an item or a user, and categories of an item
# What a prompt shows of attributes and categories, from nothing to everything: (characters of each value, how
# many of them). Values are shortened before any is left out.
DETAILS = (
    (0, 0), (30, 1), (30, 2), (30, 5), (30, 10), (30, MAX_ATTRIBUTES), (60, MAX_ATTRIBUTES),
    (125, MAX_ATTRIBUTES), (250, MAX_ATTRIBUTES), (MAX_VALUE_CHARS, MAX_ATTRIBUTES),
)  # fmt: skip
EVERYTHING = len(DETAILS) - 1
SMALL_RATING = 0.01
UNTITLED = "(untitled)"


@dataclass(frozen=True, slots=True)
class ItemCard:
    """What prompts show of an item, cleaned. `name` is the title with the year."""

    title: str
    name: str
    year: str | None
    categories: tuple[str, ...]
    attributes: dict[str, str]  # without the year

    def at(self, detail: int) -> "ItemCard":
        """The card with categories and attributes as `DETAILS[detail]` shows them."""
        if detail == EVERYTHING:
            return self
        max_chars, number = DETAILS[detail]
        categories = tuple(shortened(category, max_chars) for category in self.categories[:number])
        return replace(self, categories=categories, attributes=attributes_at(self.attributes, detail))


def attributes_at(attributes: dict[str, str], detail: int) -> dict[str, str]:
    """`attributes`, cleaned before, as `DETAILS[detail]` shows them."""
    if detail == EVERYTHING:
        return attributes
    max_chars, number = DETAILS[detail]
    return {name: shortened(value, max_chars) for name, value in list(attributes.items())[:number]}


class _Rating(NamedTuple):
    item: ItemCard
    rating: int | float | None


class HistoryEntry(_Rating):
    """A rating as templates see it: the pair (item, rating), both with their names, and `text`.

    `text` is what the user wrote about the item; None: nothing, or there is no room for it.
    """

    text: str | None

    def __new__(cls, item: ItemCard, rating: int | float | None, text: str | None = None) -> Self:
        """The pair, with its text."""
        entry = super().__new__(cls, item, rating)
        entry.text = text
        return entry


def item_card(row: dict[str, Any], cleaner: DataCleaner) -> ItemCard:
    """The card of one row of the items table; an empty `title` is the caller's to judge."""
    attributes = clean_attributes(row["attributes"], cleaner)
    year = attributes.pop("year", None)
    title = cleaner.clean(row["title"])
    shown = title or UNTITLED
    name = f"{shown} ({year})" if year and not shown.endswith(f"({year})") else shown
    categories = [cleaner.clean(category) for category in row["categories"][:MAX_ATTRIBUTES]]
    return ItemCard(title, name, year, tuple(filter(None, categories)), attributes)


def clean_attributes(pairs: list[tuple[str, str | None]], cleaner: DataCleaner) -> dict[str, str]:
    """The attributes that have a value, cleaned, in their order; at most `MAX_ATTRIBUTES`."""
    cleaned = {cleaner.clean(name): cleaner.clean(value, MAX_VALUE_CHARS) for name, value in pairs}
    return dict([(name, value) for name, value in cleaned.items() if name and value][:MAX_ATTRIBUTES])


def effective_cutoff(interactions: pa.Table, history_cutoff: datetime | None) -> datetime | None:
    """The cutoff that prompts see, in UTC: given, or just after the latest interaction (None: there is none).

    A time without a zone is taken as UTC.
    """
    if history_cutoff is not None:
        zone = history_cutoff.tzinfo or UTC
        return history_cutoff.replace(tzinfo=zone).astimezone(UTC)
    latest = pc.max(interactions["timestamp"]).as_py()
    return None if latest is None else latest + timedelta(microseconds=1)


class Histories:
    """The most recent ratings of some users, oldest first. Users are named by their row in `user_ids`.

    Who asks for more ratings than a user has gets all of them.

    Ratings of the same microsecond are ordered by item id, so that the order of the input does not
    show. Raises `DataError` if an interaction names an item that `items` lacks.
    """

    def __init__(
        self,
        interactions: pa.Table,
        user_ids: pa.Array,
        item_ids: pa.Array,
        cutoff: datetime | None,
        max_history: int,
    ) -> None:
        rows, users, times = _recent_rows(interactions, user_ids, cutoff, max_history)
        items = _positions(interactions["item_id"], item_ids, rows)
        ratings = interactions["rating"].to_numpy()[rows]  # null becomes NaN
        item_ranks = np.argsort(pc.sort_indices(item_ids).to_numpy())
        order = np.lexsort((ratings, item_ranks[items], times, users))
        order = _last_of_each(users[order], order, len(user_ids), max_history)
        self._items = items[order]
        self._ratings = ratings[order]
        self._times = times[order]
        counts = np.bincount(users[order], minlength=len(user_ids))
        self._ends = np.cumsum(counts)
        self.num_ratings = counts
        self._texts: pa.ChunkedArray | None = None
        self.num_texts = np.zeros_like(counts)
        if "text" in interactions.column_names:
            self._texts = interactions["text"].take(pa.array(rows[order]))
            with_text = users[order][self._texts.is_valid().to_numpy()]
            self.num_texts = np.bincount(with_text, minlength=len(user_ids))

    def items(self) -> np.ndarray:
        """The rows, in the items table, of the items that occur, each once."""
        return np.unique(self._items)

    def recent(self, user: int, num_ratings: int) -> list[tuple[int, int | float | None]]:
        """The last `num_ratings` of the user's (item row, rating) pairs, oldest first."""
        rows = self._rows(user, num_ratings)
        ratings = [_shown(rating) for rating in self._ratings[rows].tolist()]
        return list(zip(self._items[rows].tolist(), ratings, strict=True))

    def texts(self, user: int, num_ratings: int) -> list[str | None]:
        """What the user wrote with each of the ratings that `recent` gives, None for nothing."""
        rows = self._rows(user, num_ratings)
        if self._texts is None:
            return [None] * (rows.stop - rows.start)
        texts: list[str | None] = self._texts[rows].to_pylist()
        return texts

    def latest_time(self, user: int, num_ratings: int) -> int | None:
        """Time of the latest of the ratings that `recent` gives, in microseconds; None if there is none."""
        shown = self._times[self._rows(user, num_ratings)]
        return int(shown.max()) if len(shown) else None

    def _rows(self, user: int, num_ratings: int) -> slice:
        end = int(self._ends[user])
        return slice(end - min(num_ratings, int(self.num_ratings[user])), end)


def _recent_rows(
    interactions: pa.Table, user_ids: pa.Array, cutoff: datetime | None, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, user, time) of each user's last `limit` interactions, and of those as late as the first of them.

    Sorts integers only and copies no strings: 25 million interactions take 700 MB for the moment.
    """
    users = pc.fill_null(pc.index_in(interactions["user_id"], value_set=user_ids), -1).to_numpy()
    times = interactions["timestamp"].cast(pa.int64()).to_numpy()
    visible = users >= 0
    if cutoff is not None:
        visible &= times < pa.scalar(cutoff, TIMESTAMP).value
    rows = None if visible.all() else np.flatnonzero(visible)
    if rows is not None:
        users, times = users[rows], times[rows]
    late = np.flatnonzero(times >= _limits_in_time(users, times, len(user_ids), limit)[users])
    return late if rows is None else rows[late], users[late], times[late]


def _limits_in_time(users: np.ndarray, times: np.ndarray, num_users: int, limit: int) -> np.ndarray:
    """For each user the time of the interaction that has `limit - 1` later ones, or of the first one."""
    order = np.lexsort((times, users))
    counts = np.bincount(users, minlength=num_users)
    ends = np.cumsum(counts)
    active = np.flatnonzero(counts)
    limits = np.zeros(num_users, dtype=np.int64)
    limits[active] = times[order[np.maximum(ends - limit, ends - counts)[active]]]
    return limits


def _positions(ids: pa.ChunkedArray, known: pa.Array, rows: np.ndarray) -> np.ndarray:
    """Where in `known` the ids of `rows` stand. Only numbers are taken: of ids that would join all chunks."""
    positions = pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy()[rows]
    if len(unknown := rows[positions < 0]):
        raise DataError(f"interactions: item {ids[int(unknown[0])].as_py()!r} is not in the items table")
    return positions


def _last_of_each(users: np.ndarray, order: np.ndarray, num_users: int, limit: int) -> np.ndarray:
    """Of `order`, whose users are sorted, the last `limit` entries of each user."""
    ends = np.cumsum(np.bincount(users, minlength=num_users))
    return order[ends[users] - np.arange(len(users)) <= limit]


def _shown(rating: float) -> int | float | None:
    """A rating as a prompt writes it: 4 rather than 4.0, 4.3 rather than 4.300000190734863, and no 0.0."""
    if np.isnan(rating):
        return None
    if rating.is_integer():
        return int(rating)
    return round(rating, 2) if abs(rating) >= SMALL_RATING else float(f"{rating:.3g}")
