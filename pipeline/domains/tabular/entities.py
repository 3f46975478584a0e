"""Users and items of a tabular domain."""

import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.columns import shortened
from pipeline.domains.raw.failures import CONTENT, MAX_CONTENT_CHARACTERS, FailureLog, reject
from pipeline.domains.raw.texts import LIST_SEPARATOR
from pipeline.domains.tables import attribute_maps, with_column
from pipeline.domains.tabular.rows import RawTable, read_table_rows, require_rows
from pipeline.domains.validation import is_blank, with_unique, with_values
from pipeline.schemas import ITEMS, TEXT, USERS, conform
from pipeline.settings import (
    CategoriesColumnSettings,
    Duplicates,
    ItemsTableSettings,
    Kind,
    UsersTableSettings,
)

logger = logging.getLogger(__name__)
ATTRIBUTE = "attribute:"  # before the names of attributes, which may be any text
MAX_ATTRIBUTE_CHARACTERS = 1000  # twice what a prompt shows of one
ROWS_AT_ONCE = 8192  # whose attributes become maps together
MAX_TITLE_CHARACTERS = 1000  # five times what a prompt shows
MAX_CATEGORIES_CHARACTERS = 20_000  # of one item, all together; a prompt shows twenty categories
NUM_REPEATED_AT_ONCE = 200_000  # rows that may repeat an id before they are looked through


def item_columns(settings: ItemsTableSettings) -> dict[str, str]:
    """Our name -> the files' column."""
    columns = {"item_id": settings.id, "title": settings.title}
    if (categories := _categories(settings)) is not None:
        columns["categories"] = categories.column
    return columns | {ATTRIBUTE + name: column for name, column in settings.attributes.items()}


def user_columns(settings: UsersTableSettings) -> dict[str, str]:
    """Our name -> the files' column."""
    return {"user_id": settings.id} | {
        ATTRIBUTE + name: column for name, column in settings.attributes.items()
    }


def read_items(table: RawTable, settings: ItemsTableSettings, wanted: pa.Array | None = None) -> pa.Table:
    """The items of all files, as an ITEMS table; bad rows are in the logs of `table`.

    `wanted`: the ids of the items to keep; the others are passed over and cost no memory.
    """
    categories = _categories(settings)
    blocks = _blocks(table, "item", settings, partial(_bounded_items, categories=categories), wanted)
    if settings.duplicates == "error":
        kept = [with_values(rows, "title", "title", log) for log, rows in _unique_rows(table, "item", blocks)]
    else:
        titled = (with_values(rows, "title", "title", log) for log, rows in blocks)
        kept = [_one_of_each(table, "item", titled, settings.duplicates, is_told=wanted is None)]
    require_rows(table)
    rows = pa.concat_tables(kept)
    lists = _category_lists(rows, categories)
    rows = rows.select(["item_id", "title", "attributes"]).append_column("categories", lists)
    return conform(rows, ITEMS, table.place, unique=("item_id",))


def read_users(table: RawTable, settings: UsersTableSettings) -> pa.Table:
    """The users of all files, as a USERS table; bad rows are in the logs of `table`."""
    blocks = _blocks(table, "user", settings, partial(_bounded, needed="user_id"))
    if settings.duplicates == "error":
        kept = [rows for _, rows in _unique_rows(table, "user", blocks)]
    else:
        kept = [_one_of_each(table, "user", (rows for _, rows in blocks), settings.duplicates)]
    require_rows(table)
    rows = pa.concat_tables(kept).select(["user_id", "attributes"])
    return conform(rows, USERS, table.place, unique=("user_id",))


def _blocks(
    table: RawTable,
    kind: Kind,
    settings: ItemsTableSettings | UsersTableSettings,
    bounded: Callable[[pa.Table], pa.Table],
    wanted: pa.Array | None = None,
) -> Iterator[tuple[FailureLog, pa.Table]]:
    """The rows that have an id (one of `wanted`), made smaller by `bounded`, with the log of their file.

    Their attributes are one column of maps.
    """
    for log, rows in read_table_rows(table):
        rows = with_values(rows, f"{kind}_id", f"{kind} id", log)
        if wanted is not None:
            rows = rows.filter(pc.is_in(rows[f"{kind}_id"], value_set=wanted))
        yield log, _with_attributes(bounded(rows), list(settings.attributes))


def _one_of_each(
    table: RawTable, kind: Kind, blocks: Iterator[pa.Table], which: Duplicates, is_told: bool = True
) -> pa.Table:
    """The first or the last row of each id; a message says how many others there were, if it `is_told`.

    A log of interactions has many rows for each: what repeats an id is let go before it fills the memory.
    """
    kept: list[pa.Table] = []
    num_distinct = num_rows = 0
    renamed = ""
    for block in blocks:
        num_rows += block.num_rows
        renamed = renamed or _renamed(block, kind)
        kept.append(_without_repeated(block, kind, which))
        if sum(part.num_rows for part in kept) > 2 * num_distinct + NUM_REPEATED_AT_ONCE:
            renamed = renamed or _renamed(pa.concat_tables(kept), kind)
            kept = [_without_repeated(pa.concat_tables(kept), kind, which)]
            num_distinct = kept[0].num_rows
    require_rows(table)
    found = pa.concat_tables(kept)
    rows = _without_repeated(found, kind, which)
    num_repeated = num_rows - rows.num_rows
    if is_told and num_repeated:
        repeat = "repeats" if num_repeated == 1 else "repeat"
        repeated = f"{num_repeated:,} of {num_rows:,} rows {repeat} the id of another"
        counts = f"the {which} row of each {kind} counts (duplicates: {which})"
        logger.info("%s: %s; %s%s", table.place, repeated, counts, renamed or _renamed(found, kind))
    return rows


def _without_repeated(rows: pa.Table, kind: Kind, which: Duplicates) -> pa.Table:
    """The first or the last row of each id, in their order."""
    codes = _codes(rows[f"{kind}_id"])
    if which == "first":
        places = np.unique(codes, return_index=True)[1]
    else:
        places = len(codes) - 1 - np.unique(codes[::-1], return_index=True)[1]
    is_kept = np.zeros(len(codes), dtype=bool)
    is_kept[places] = True
    return rows if is_kept.all() else rows.filter(pa.array(is_kept))


def _renamed(rows: pa.Table, kind: Kind) -> str:
    """The end of a message: an item that has two titles, as all have where another column is the id."""
    if kind == "user":
        return ""
    codes, titles = _codes(rows["item_id"]), _codes(rows["title"])
    first = np.unique(codes, return_index=True)[1][codes]
    differing = np.flatnonzero(titles != titles[first])
    if not differing.size:
        return ""
    item = rows["item_id"][int(differing[0])].as_py()
    both = [shortened(rows["title"][int(place)].as_py()) for place in (first[differing[0]], differing[0])]
    return f"; they do not always agree, item {shortened(item)!r} is {both[0]!r} and {both[1]!r}"


def _codes(texts: pa.ChunkedArray) -> np.ndarray:
    """A number for each different text."""
    return pc.index_in(texts, value_set=pc.unique(texts)).to_numpy()


def _unique_rows(
    table: RawTable, kind: Kind, blocks: Iterator[tuple[FailureLog, pa.Table]]
) -> list[tuple[FailureLog, pa.Table]]:
    """For each file its rows with an id that no earlier row has; the others are bad rows."""
    column = f"{kind}_id"
    by_log: dict[int, tuple[FailureLog, list[pa.Table]]] = {}
    for log, rows in blocks:
        by_log.setdefault(id(log), (log, []))[1].append(rows)
    require_rows(table)
    seen = pa.chunked_array([], pa.string())
    unique = []
    for log, parts in by_log.values():
        rows = with_unique(pa.concat_tables(parts), column, kind, log)
        known = pc.is_in(rows[column], value_set=seen)
        rows = reject(rows, known, f"{kind} '{{{column}}}' stands already in an earlier file", log)
        seen = pa.chunked_array([*seen.chunks, *rows[column].chunks], pa.string())
        unique.append((log, rows))
    return unique


def _bounded(rows: pa.Table, needed: str) -> pa.Table:
    """`rows` without what would fill the memory: metadata can be kilobytes a line.

    The start of a raw line stays only where `needed` lacks; attributes are cut to MAX_ATTRIBUTE_CHARACTERS.
    """
    line = pc.if_else(is_blank(rows[needed]), rows[CONTENT], "")
    rows = with_column(rows, CONTENT, pc.utf8_slice_codeunits(line, 0, MAX_CONTENT_CHARACTERS))
    for name in rows.column_names:
        if name.startswith(ATTRIBUTE):
            cut = pc.utf8_slice_codeunits(rows[name], 0, MAX_ATTRIBUTE_CHARACTERS)
            rows = with_column(rows, name, cut.cast(TEXT))
    return rows


def _bounded_items(rows: pa.Table, categories: CategoriesColumnSettings | None) -> pa.Table:
    """As `_bounded`; titles, trimmed, and categories, joined by LIST_SEPARATOR, are cut as well."""
    rows = _bounded(rows, needed="title")
    title = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(rows["title"]), 0, MAX_TITLE_CHARACTERS)
    rows = with_column(rows, "title", title.cast(TEXT))
    if categories is None:
        return rows
    texts = rows["categories"].cast(TEXT)
    if categories.separator is not None:
        texts = pc.replace_substring(texts, categories.separator, LIST_SEPARATOR)
    cut = pc.utf8_slice_codeunits(texts, 0, MAX_CATEGORIES_CHARACTERS)
    whole = pc.replace_substring_regex(cut, f"{LIST_SEPARATOR}[^{LIST_SEPARATOR}]*$", "")
    return with_column(rows, "categories", pc.if_else(pc.equal(cut, texts), texts, whole))


def _with_attributes(rows: pa.Table, names: list[str]) -> pa.Table:
    """`rows` with the column `attributes` in place of one column for each of `names`."""
    maps = []
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = {}
        for name in names:
            text = pc.replace_substring(batch[ATTRIBUTE + name], LIST_SEPARATOR, ", ")
            columns[name] = pc.if_else(pc.equal(text, ""), None, text)
        maps.append(attribute_maps(columns, batch.num_rows))
    kept = [name for name in rows.column_names if not name.startswith(ATTRIBUTE)]
    return rows.select(kept).append_column(
        "attributes", pa.chunked_array(maps, USERS.field("attributes").type)
    )


def _category_lists(rows: pa.Table, settings: CategoriesColumnSettings | None) -> pa.ChunkedArray:
    """Each row's different categories in the order of the file; blank ones are none."""
    if settings is None:
        return pa.chunked_array([pa.array([[]] * rows.num_rows, pa.list_(TEXT))])
    lists = []
    for chunk in pc.fill_null(rows["categories"], "").chunks:
        encoded = chunk.dictionary_encode()
        different = pa.array([_different(text) for text in encoded.dictionary.to_pylist()], pa.list_(TEXT))
        lists.append(different.take(encoded.indices))
    return pa.chunked_array(lists, pa.list_(TEXT))


def _different(text: str) -> list[str]:
    return [name for name in dict.fromkeys(part.strip() for part in text.split(LIST_SEPARATOR)) if name]


def _categories(settings: ItemsTableSettings) -> CategoriesColumnSettings | None:
    categories = settings.categories
    return CategoriesColumnSettings(column=categories) if isinstance(categories, str) else categories
