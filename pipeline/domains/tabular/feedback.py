"""Interactions of a tabular domain: checked, typed, and freed of repetitions across files."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.interactions import InteractionRules
from pipeline.domains.raw.failures import LINE, FailureLog
from pipeline.domains.raw.texts import LIST_SEPARATOR
from pipeline.domains.tables import with_column
from pipeline.domains.tabular.rows import RawTable, read_table_rows
from pipeline.domains.tabular.times import with_times
from pipeline.domains.validation import (
    repeated_interactions,
    require_unit,
    with_known,
    with_ratings,
    with_values,
)
from pipeline.schemas import INTERACTIONS, INTERACTIONS_WITH_TEXT, TIMESTAMP, conform
from pipeline.settings import InteractionsTableSettings, RatingColumnSettings, TimestampColumnSettings

IMPLICIT = "__implicit"
MAX_TEXT_CHARACTERS = 501  # one more than a prompt shows, which sees by it that there was more


def feedback_columns(settings: InteractionsTableSettings) -> dict[str, str]:
    """Our name -> the files' column."""
    columns = {"user_id": settings.user, "item_id": settings.item}
    if (rating := _rating(settings)) is not None:
        columns["rating"] = rating.column
    if (timestamp := _timestamp(settings)) is not None:
        columns["timestamp"] = timestamp.column
    if settings.text is not None:
        columns["text"] = settings.text
    return columns


def read_feedback(table: RawTable, settings: InteractionsTableSettings, rules: InteractionRules) -> pa.Table:
    """The valid interactions of all files in their order, as INTERACTIONS or INTERACTIONS_WITH_TEXT.

    Bad rows are in the logs of `table`. Without a timestamp the n-th row gets the n-th microsecond of 1970.
    """
    schema = INTERACTIONS if settings.text is None else INTERACTIONS_WITH_TEXT
    parts = [schema.empty_table()]
    places: list[tuple[FailureLog, np.ndarray]] = []
    num_rows = 0
    for log, rows in read_table_rows(table):
        num_read = rows.num_rows
        if "timestamp" not in rows.column_names:
            times = pa.array(np.arange(num_rows, num_rows + num_read)).cast(TIMESTAMP)
            rows = rows.append_column("timestamp", times)
        elif not places or places[-1][0] is not log:
            _require_unit(rows, table, settings, log)
        rows = _valid(rows, settings, rules, log)
        if settings.text is not None:
            rows = with_column(rows, "text", _shortened(rows["text"]))
        parts.append(rows.select(schema.names).cast(schema))
        places.append((log, rows[LINE].to_numpy()))
        num_rows += num_read
    merged = pa.concat_tables(parts)
    if settings.timestamp is not None:
        merged = _without_repetitions(merged, places, rules)
    return conform(merged, schema, table.place)


def _shortened(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """`texts` on one line, cut to MAX_TEXT_CHARACTERS: they are the largest column. Blank ones are null."""
    joined = pc.replace_substring(texts, LIST_SEPARATOR, ", ")
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(joined, r"\s+", " "))
    return pc.utf8_slice_codeunits(pc.if_else(pc.equal(words, ""), None, words), 0, MAX_TEXT_CHARACTERS)


def _require_unit(
    rows: pa.Table, table: RawTable, settings: InteractionsTableSettings, log: FailureLog
) -> None:
    """Look at the first rows of a file: times in another unit would lie in January 1970, or nowhere."""
    timestamp = _timestamp(settings)
    assert timestamp is not None
    where = f"{table.place}.timestamp: column {timestamp.column!r} of {log.path}"
    remedy = "write `unit: {unit}`" if table.place.startswith("dataset.tabular") else "is it another layout?"
    require_unit(rows["timestamp"], timestamp.unit, where, remedy)


def _valid(
    rows: pa.Table, settings: InteractionsTableSettings, rules: InteractionRules, log: FailureLog
) -> pa.Table:
    rows = with_values(rows, "user_id", "user id", log)
    rows = with_values(rows, "item_id", "item id", log)
    rows = with_known(rows, "item_id", rules.items, "item", log)
    if rules.users is not None:
        rows = with_known(rows, "user_id", rules.users, "user", log)
    rows = _with_feedback(rows, _rating(settings), rules, log)
    timestamp = _timestamp(settings)
    return rows if timestamp is None else with_times(rows, timestamp.unit, log)


def _with_feedback(
    rows: pa.Table, rating: RatingColumnSettings | None, rules: InteractionRules, log: FailureLog
) -> pa.Table:
    """`rows` with `rating` as float32, null for implicit feedback."""
    if rating is None:
        return rows.append_column("rating", pa.nulls(rows.num_rows, pa.float32()))
    values = rows["rating"]
    implicit = pc.or_(
        pc.is_null(values), pc.is_in(values, value_set=pa.array(rating.implicit_values, pa.string()))
    )
    stand_in = pc.if_else(implicit, str(rules.min_rating), values)
    rows = with_column(rows, "rating", stand_in).append_column(IMPLICIT, implicit)
    rows = with_ratings(rows, rules.min_rating, rules.max_rating, log)
    return with_column(rows, "rating", pc.if_else(rows[IMPLICIT], None, rows["rating"]))


def _without_repetitions(
    table: pa.Table, places: list[tuple[FailureLog, np.ndarray]], rules: InteractionRules
) -> pa.Table:
    users = rules.users if rules.users is not None else pc.unique(table["user_id"])
    repeated = repeated_interactions(table, users, rules.items)
    if not repeated.size:
        return table
    start = 0
    for log, lines in places:
        stop = start + len(lines)
        found = pa.array(
            lines[repeated[np.searchsorted(repeated, start) : np.searchsorted(repeated, stop)] - start]
        )
        reasons = pa.repeat("the same user, item and timestamp stand on an earlier line", len(found))
        log.add(found, reasons, pa.repeat("", len(found)))
        start = stop
    kept = np.ones(table.num_rows, dtype=bool)
    kept[repeated] = False
    return table.filter(pa.array(kept))


def _rating(settings: InteractionsTableSettings) -> RatingColumnSettings | None:
    rating = settings.rating
    return RatingColumnSettings(column=rating) if isinstance(rating, str) else rating


def _timestamp(settings: InteractionsTableSettings) -> TimestampColumnSettings | None:
    timestamp = settings.timestamp
    return TimestampColumnSettings(column=timestamp) if isinstance(timestamp, str) else timestamp
