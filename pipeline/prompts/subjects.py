"""Whom prompts are about: for each kind, what its template is given and what forbids a prompt."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.failure_bound import NO_INTERACTIONS
from pipeline.prompts.cleaning import MAX_VALUE_CHARS, DataCleaner
from pipeline.prompts.histories import (
    EVERYTHING,
    Histories,
    HistoryEntry,
    ItemCard,
    attributes_at,
    clean_attributes,
    item_card,
)
from pipeline.settings import Kind
from pipeline.spool import RowReader

if TYPE_CHECKING:
    from pipeline.domains import DomainTables

NUM_CARDS_AT_ONCE = 1024  # bounds the Python objects alive at once
NUM_TEXT_SIZES = 10  # in so many steps the texts of a history grow to MAX_VALUE_CHARS each


class Subjects(Protocol):
    """The entities of one kind, named by their row in the ids they were made for.

    A prompt can show less of an entity to fit the context: its size is a number from 0 to `sizes[row]`.
    """

    sizes: np.ndarray
    """The size of the prompt that shows everything, by row."""

    def variables(self, row: int, size: int) -> dict[str, Any]:
        """What the template is given for a prompt of `size`; the larger, the more is shown."""

    def latest_time(self, row: int, size: int) -> int | None:
        """Time (microseconds since 1970) of the latest event that such a prompt shows; None: no event."""
        ...

    def titles(self, row: int, size: int) -> list[str]:
        """The titles that such a prompt shows and its text may name."""
        ...

    def objection(self, row: int, size: int) -> str | None:
        """Why a prompt of that size would say nothing about the entity; None: it does."""


class ItemSubjects:
    """Items: their card. The size is the detail of its categories and attributes."""

    def __init__(
        self, ids: pa.Array, tables: "DomainTables", constants: dict[str, Any], cleaner: DataCleaner
    ) -> None:
        self._items = RowReader(tables.items)
        self._places = _places_of(ids, tables.items, "item")
        self._cleaner = cleaner
        self._first_row = 0
        self._cards: list[ItemCard] = []
        self._constants = constants
        self.sizes = np.full(len(ids), EVERYTHING, dtype=np.int64)

    def variables(self, row: int, size: int) -> dict[str, Any]:
        """See `Subjects`."""
        return {**self._constants, "item": self._card(row).at(size)}

    def latest_time(self, row: int, size: int) -> int | None:
        """See `Subjects`."""
        return None

    def titles(self, row: int, size: int) -> list[str]:
        """See `Subjects`."""
        return [self._card(row).title]

    def objection(self, row: int, size: int) -> str | None:
        """See `Subjects`."""
        return None if self._card(row).title else "the title is empty"

    def _card(self, row: int) -> ItemCard:
        """Rows are asked for in their order, many times each: the cards of one block are kept."""
        if not self._first_row <= row < self._first_row + len(self._cards):
            self._first_row = row - row % NUM_CARDS_AT_ONCE
            places = self._places[self._first_row : self._first_row + NUM_CARDS_AT_ONCE]
            self._cards = [item_card(entry, self._cleaner) for entry in self._items.read(places).to_pylist()]
        return self._cards[row - self._first_row]


class UserSubjects:
    """Users: their attributes and their most recent ratings before the cutoff.

    From the smallest size on, a prompt shows: one short attribute; with it the latest rating; more of the
    attributes, up to all; more ratings; what the user wrote, in texts of growing length.
    """

    def __init__(
        self,
        ids: pa.Array,
        tables: "DomainTables",
        histories: Histories,
        constants: dict[str, Any],
        cleaner: DataCleaner,
    ) -> None:
        """`histories` counts users as `ids` does and items as the items table does."""
        users = _rows_at(tables.users, _places_of(ids, tables.users, "user"))
        self._attributes = [clean_attributes(user["attributes"], cleaner) for user in users]
        shown = histories.items()
        cards = cards_of(tables.items, shown, cleaner)
        self._cards = dict(zip(shown.tolist(), cards, strict=True))
        self._histories = histories
        self._cleaner = cleaner
        self._constants = constants
        self._max_details = np.array([EVERYTHING if known else 0 for known in self._attributes], np.int64)
        num_texts = np.where(histories.num_texts > 0, NUM_TEXT_SIZES, 0)
        self.sizes = self._max_details + histories.num_ratings + num_texts

    def variables(self, row: int, size: int) -> dict[str, Any]:
        """See `Subjects`."""
        detail, num_ratings = self._shown(row, size)
        recent, texts = self._histories.recent(row, num_ratings), self._texts(row, size, num_ratings)
        history = [
            HistoryEntry(self._cards[item], rating, text)
            for (item, rating), text in zip(recent, texts, strict=True)
        ]
        ratings = [rating for _, rating in recent if rating is not None]
        mean = sum(ratings) / max(1, len(ratings))
        return {
            **self._constants,
            "attributes": attributes_at(self._attributes[row], detail),
            "history": history,
            "liked": [entry for entry in history if entry.rating is None or entry.rating >= mean],
            "disliked": [entry for entry in history if entry.rating is not None and entry.rating < mean],
        }

    def latest_time(self, row: int, size: int) -> int | None:
        """See `Subjects`."""
        return self._histories.latest_time(row, self._shown(row, size)[1])

    def titles(self, row: int, size: int) -> list[str]:
        """See `Subjects`."""
        recent = self._histories.recent(row, self._shown(row, size)[1])
        return [self._cards[item].title for item, _ in recent]

    def objection(self, row: int, size: int) -> str | None:
        """A user of whom nothing at all is known would get an invented text; attributes are enough."""
        if any(self._shown(row, size)):
            return None
        if self.sizes[row]:
            what = "rating" if self._histories.num_ratings[row] else "attribute"
            return f"not a single {what} fits into model.max_model_len"
        return NO_INTERACTIONS

    def _shown(self, row: int, size: int) -> tuple[int, int]:
        """(detail of the attributes, number of ratings) at `size`."""
        most, num_ratings = int(self._max_details[row]), int(self._histories.num_ratings[row])
        if not most or not num_ratings or size < 2:
            return min(size, most), 0 if most else min(size, num_ratings)
        return min(size - 1, most), min(max(size - most, 1), num_ratings)

    def _texts(self, row: int, size: int, num_ratings: int) -> list[str | None]:
        texts = self._histories.texts(row, num_ratings)
        text_size = size - int(self._max_details[row]) - int(self._histories.num_ratings[row])
        if text_size <= 0:
            return [None] * len(texts)
        max_chars = MAX_VALUE_CHARS * text_size // NUM_TEXT_SIZES
        return [self._cleaner.clean(text, max_chars) or None for text in texts]


def cards_of(items: pa.Table, rows: np.ndarray, cleaner: DataCleaner) -> list[ItemCard]:
    """The cards of these `rows` of `items`, in their order."""
    return [item_card(row, cleaner) for row in _rows_at(items, rows)]


def _rows_at(table: pa.Table, places: np.ndarray) -> Iterator[dict[str, Any]]:
    """The rows of `table` at `places`, in their order, a few of them in memory at once."""
    reader = RowReader(table)
    for first in range(0, len(places), NUM_CARDS_AT_ONCE):
        yield from reader.read(places[first : first + NUM_CARDS_AT_ONCE]).to_pylist()


def _places_of(ids: pa.Array, table: pa.Table, kind: Kind) -> np.ndarray:
    """The rows of `table` for `ids`, in their order. Raises `DataError` for an id it lacks."""
    positions = pc.index_in(ids, value_set=table[f"{kind}_id"].combine_chunks())
    if positions.null_count:
        unknown = ids.filter(pc.is_null(positions))[0].as_py()
        raise DataError(f"groups: {kind} {unknown!r} is not in the {kind}s table")
    return np.asarray(positions.to_numpy(), np.int64)
