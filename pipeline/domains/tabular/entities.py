"""Users and items of a tabular domain."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import CONTENT, LINE, MAX_CONTENT_CHARACTERS, FailureLog, reject
from pipeline.domains.raw.texts import LIST_SEPARATOR
from pipeline.domains.tables import attribute_maps, with_column
from pipeline.domains.tabular.rows import RawTable, read_table_rows, require_rows
from pipeline.domains.validation import is_blank, with_unique, with_values
from pipeline.schemas import ITEMS, USERS, conform
from pipeline.settings import CategoriesColumnSettings, ItemsTableSettings, UsersTableSettings

ATTRIBUTE = "attribute:"  # before the names of attributes, which may be any text
MAX_ATTRIBUTE_CHARACTERS = 1000  # twice what a prompt shows of one
MAX_TITLE_CHARACTERS = 1000  # five times what a prompt shows
MAX_CATEGORIES_CHARACTERS = 20_000  # of one item, all together; a prompt shows twenty categories


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
    bounded = partial(_bounded_items, categories=categories)
    parts = []
    for log, rows in _unique_rows(table, "item_id", "item", bounded, wanted):
        rows = with_values(rows, "title", "title", log)
        parts.append(_with_attributes(rows, list(settings.attributes)))
    rows = _merged(table, parts)
    lists = _category_lists(rows, categories)
    rows = rows.select(["item_id", "title", "attributes"]).append_column("categories", lists)
    return conform(rows, ITEMS, table.place, unique=("item_id",))


def read_users(table: RawTable, settings: UsersTableSettings) -> pa.Table:
    """The users of all files, as a USERS table; bad rows are in the logs of `table`."""
    unique = _unique_rows(table, "user_id", "user", partial(_bounded, needed="user_id"))
    parts = [_with_attributes(rows, list(settings.attributes)) for _, rows in unique]
    rows = _merged(table, parts).select(["user_id", "attributes"])
    return conform(rows, USERS, table.place, unique=("user_id",))


def _unique_rows(
    table: RawTable,
    column: str,
    what: str,
    bounded: Callable[[pa.Table], pa.Table],
    wanted: pa.Array | None = None,
) -> list[tuple[FailureLog, pa.Table]]:
    """For each file its rows with an id that no earlier row has, blocks made smaller by `bounded`."""
    by_log: dict[int, tuple[FailureLog, list[pa.Table]]] = {}
    for log, rows in read_table_rows(table):
        rows = with_values(rows, column, f"{what} id", log)
        if wanted is not None:
            rows = rows.filter(pc.is_in(rows[column], value_set=wanted))
        by_log.setdefault(id(log), (log, []))[1].append(bounded(rows))
    require_rows(table)
    seen = pa.array([], pa.string())
    unique = []
    for log, blocks in by_log.values():
        rows = with_unique(pa.concat_tables(blocks).combine_chunks(), column, what, log)
        known = pc.is_in(rows[column], value_set=seen)
        rows = reject(rows, known, f"{what} '{{{column}}}' stands already in an earlier file", log)
        seen = pa.concat_arrays([seen, rows[column].combine_chunks()])
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
            rows = with_column(rows, name, cut)
    return rows


def _bounded_items(rows: pa.Table, categories: CategoriesColumnSettings | None) -> pa.Table:
    """As `_bounded`; titles, trimmed, and categories, joined by LIST_SEPARATOR, are cut as well."""
    rows = _bounded(rows, needed="title")
    title = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(rows["title"]), 0, MAX_TITLE_CHARACTERS)
    rows = with_column(rows, "title", title)
    if categories is None:
        return rows
    texts = rows["categories"]
    if categories.separator is not None:
        texts = pc.replace_substring(texts, categories.separator, LIST_SEPARATOR)
    cut = pc.utf8_slice_codeunits(texts, 0, MAX_CATEGORIES_CHARACTERS)
    whole = pc.replace_substring_regex(cut, f"{LIST_SEPARATOR}[^{LIST_SEPARATOR}]*$", "")
    return with_column(rows, "categories", pc.if_else(pc.equal(cut, texts), texts, whole))


def _merged(table: RawTable, parts: list[pa.Table]) -> pa.Table:
    require_rows(table)
    return pa.concat_tables(parts).combine_chunks()


def _with_attributes(rows: pa.Table, names: list[str]) -> pa.Table:
    columns = {}
    for name in names:
        text = pc.replace_substring(rows[ATTRIBUTE + name], LIST_SEPARATOR, ", ")
        columns[name] = _combined(pc.if_else(pc.equal(text, ""), None, text))
    maps = attribute_maps(columns, rows.num_rows)
    kept = [name for name in rows.column_names if name != LINE and not name.startswith(ATTRIBUTE)]
    return rows.select(kept).append_column("attributes", maps)


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _category_lists(rows: pa.Table, settings: CategoriesColumnSettings | None) -> pa.Array:
    """Each row's different categories in the order of the file; blank ones are none."""
    if settings is None:
        return pa.array([[]] * rows.num_rows, pa.list_(pa.string()))
    encoded = _combined(pc.fill_null(rows["categories"], "")).dictionary_encode()
    lists = pa.array([_different(text) for text in encoded.dictionary.to_pylist()], pa.list_(pa.string()))
    return lists.take(pa.array(np.asarray(encoded.indices)))


def _different(text: str) -> list[str]:
    return [name for name in dict.fromkeys(part.strip() for part in text.split(LIST_SEPARATOR)) if name]


def _categories(settings: ItemsTableSettings) -> CategoriesColumnSettings | None:
    categories = settings.categories
    return CategoriesColumnSettings(column=categories) if isinstance(categories, str) else categories
