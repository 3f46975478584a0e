"""Whom prompts are about: for each kind, what its template is given and what forbids a prompt."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.prompts.cleaning import DataCleaner
from pipeline.prompts.histories import Histories, ItemCard, clean_attributes, item_card
from pipeline.settings import Kind

if TYPE_CHECKING:
    from pipeline.domains import DomainTables

NUM_CARDS_AT_ONCE = 1024  # bounds the Python objects alive at once


class Subjects(Protocol):
    """The entities of one kind, named by their row in the ids they were made for."""

    num_ratings: np.ndarray
    """How many ratings a prompt may show at most, by row."""

    def variables(self, row: int, num_ratings: int) -> dict[str, Any]:
        """What the template is given when the most recent `num_ratings` are shown."""

    def latest_time(self, row: int, num_ratings: int) -> int | None:
        """Time (microseconds since 1970) of the latest event that such a prompt shows; None: no event."""
        ...

    def objection(self, row: int, num_ratings: int) -> str | None:
        """Why a prompt that shows so few ratings would say nothing about the entity; None: it does."""


class ItemSubjects:
    """Items: their card, no ratings."""

    def __init__(
        self, ids: pa.Array, tables: "DomainTables", constants: dict[str, Any], cleaner: DataCleaner
    ) -> None:
        self._items = rows_of(ids, tables.items, "item")
        self._cleaner = cleaner
        self._first_row = 0
        self._cards: list[ItemCard] = []
        self._constants = constants
        self.num_ratings = np.zeros(len(ids), dtype=np.int64)

    def variables(self, row: int, num_ratings: int) -> dict[str, Any]:
        """See `Subjects`."""
        return {**self._constants, "item": self._card(row)}

    def latest_time(self, row: int, num_ratings: int) -> int | None:
        """See `Subjects`."""
        return None

    def objection(self, row: int, num_ratings: int) -> str | None:
        """See `Subjects`."""
        return None if self._card(row).title else "the title is empty"

    def _card(self, row: int) -> ItemCard:
        """Rows are asked for in their order, many times each: the cards of one block are kept."""
        if not self._first_row <= row < self._first_row + len(self._cards):
            self._first_row = row - row % NUM_CARDS_AT_ONCE
            block = self._items.slice(self._first_row, NUM_CARDS_AT_ONCE)
            self._cards = [item_card(entry, self._cleaner) for entry in block.to_pylist()]
        return self._cards[row - self._first_row]


class UserSubjects:
    """Users: their attributes and their most recent ratings before the cutoff."""

    def __init__(
        self,
        ids: pa.Array,
        tables: "DomainTables",
        histories: Histories,
        constants: dict[str, Any],
        cleaner: DataCleaner,
    ) -> None:
        """`histories` counts users as `ids` does and items as the items table does."""
        attributes = rows_of(ids, tables.users, "user")["attributes"].to_pylist()
        self._attributes = [clean_attributes(pairs, cleaner) for pairs in attributes]
        shown = histories.items()
        cards = cards_of(tables.items.take(pa.array(shown)), cleaner)
        self._cards = dict(zip(shown.tolist(), cards, strict=True))
        self._histories = histories
        self._constants = constants
        self.num_ratings = histories.num_ratings

    def variables(self, row: int, num_ratings: int) -> dict[str, Any]:
        """See `Subjects`."""
        recent = self._histories.recent(row, num_ratings)
        history = [(self._cards[item], rating) for item, rating in recent]
        return {**self._constants, "attributes": self._attributes[row], "history": history}

    def latest_time(self, row: int, num_ratings: int) -> int | None:
        """See `Subjects`."""
        return self._histories.latest_time(row, num_ratings)

    def objection(self, row: int, num_ratings: int) -> str | None:
        """A user of whom nothing at all is known would get an invented text; attributes are enough."""
        if num_ratings or self._attributes[row]:
            return None
        if self.num_ratings[row]:
            return "not a single rating fits into model.max_model_len"
        return "no interactions before the cutoff"


def cards_of(items: pa.Table, cleaner: DataCleaner) -> list[ItemCard]:
    """The card of every row, in their order."""
    batches = items.to_batches(max_chunksize=NUM_CARDS_AT_ONCE)
    return [item_card(row, cleaner) for batch in batches for row in batch.to_pylist()]


def rows_of(ids: pa.Array, table: pa.Table, kind: Kind) -> pa.Table:
    """The rows of `table` for `ids`, in their order. Raises `DataError` for an id it lacks."""
    positions = pc.index_in(ids, value_set=table[f"{kind}_id"].combine_chunks())
    if positions.null_count:
        unknown = ids.filter(pc.is_null(positions))[0].as_py()
        raise DataError(f"groups: {kind} {unknown!r} is not in the {kind}s table")
    return table.take(positions)
