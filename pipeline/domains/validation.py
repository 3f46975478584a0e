"""What makes a row of a domain table valid, for every reader. Invalid rows go to the file's FailureLog."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import LINE, FailureLog, reject
from pipeline.domains.tables import with_column
from pipeline.schemas import TIMESTAMP

MAX_TIMESTAMP_SEC = 253_402_300_799  # the end of the year 9999; larger values are milliseconds

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


def with_values(rows: pa.Table, column: str, what: str, log: FailureLog) -> pa.Table:
    """The rows whose string `column` is neither null nor blank; `what` names it in the reason."""
    return reject(rows, is_blank(rows[column]), f"no {what}", log)


def is_blank(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each of `texts` is null or nothing but white space."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)


def with_ratings(rows: pa.Table, minimum: float, maximum: float, log: FailureLog) -> pa.Table:
    """The rows whose `rating` is a number from `minimum` to `maximum`, now as float32."""
    rows, ratings = _numbers(rows, "rating", "rating '{rating}' is not a number", log)
    outside = pc.invert(pc.and_(pc.greater_equal(ratings, minimum), pc.less_equal(ratings, maximum)))
    kept = reject(rows, outside, f"rating {{rating}} is outside {minimum:g} to {maximum:g}", log)
    return with_column(kept, "rating", ratings.filter(pc.invert(outside)).cast(pa.float32()))


def with_timestamps(rows: pa.Table, log: FailureLog, micros_per_unit: int = 1_000_000) -> pa.Table:
    """The rows whose `timestamp` is a number since 1970 (of seconds by default), now as TIMESTAMP."""
    rows, numbers = _numbers(rows, "timestamp", "timestamp '{timestamp}' is not a number", log)
    last = float(MAX_TIMESTAMP_SEC) * (1_000_000 // micros_per_unit)
    outside = pc.or_(pc.less(numbers, 0), pc.greater(numbers, last))
    unit = {1_000_000: "seconds", 1_000: "milliseconds", 1: "microseconds"}[micros_per_unit]
    reason = f"timestamp {{timestamp}} is not in {unit} between the years 1970 and 9999"
    kept = reject(rows, outside, reason, log)
    micros = pc.round(pc.multiply(numbers.filter(pc.invert(outside)), micros_per_unit)).cast(pa.int64())
    return with_column(kept, "timestamp", micros.cast(TIMESTAMP))


def within_range(rows: pa.Table, times: pa.ChunkedArray, what: str, log: FailureLog) -> pa.Table:
    """The rows whose `times` (TIMESTAMP, no nulls) other code can count with, these as `timestamp`.

    `what` names a time in the reason.
    """
    micros = times.cast(pa.int64())
    outside = pc.or_(pc.less(micros, 0), pc.greater(micros, MAX_TIMESTAMP_SEC * 1_000_000))
    kept = reject(rows, outside, f"{what} is not from 1970 to 9999-12-31 23:59:59", log)
    return with_column(kept, "timestamp", times.filter(pc.invert(outside)))


def _numbers(rows: pa.Table, column: str, reason: str, log: FailureLog) -> tuple[pa.Table, pa.ChunkedArray]:
    """The rows whose `column` is a finite number, and these numbers as float64."""
    try:
        numbers = rows[column].cast(pa.float64())
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(rows[column])
        numeric = pc.match_substring_regex(text, _NUMBER)
        numbers = pc.if_else(numeric, text, "nan").cast(pa.float64())
    finite = pc.is_finite(numbers)
    return reject(rows, pc.invert(finite), reason, log), numbers.filter(finite)


def with_known(rows: pa.Table, column: str, known: pa.Array, what: str, log: FailureLog) -> pa.Table:
    """The rows whose id in `column` is one of `known`; `what` is the kind of entity."""
    unknown = pc.invert(pc.is_in(rows[column], value_set=known))
    return reject(rows, unknown, f"unknown {what} '{{{column}}}'", log)


def with_unique(rows: pa.Table, column: str, what: str, log: FailureLog) -> pa.Table:
    """The first row of each id in `column`; the later ones name the line of the first."""
    ids = rows[column].combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    _, first_rows = np.unique(codes, return_index=True)  # codes are numbered by first appearance
    first_lines = rows[LINE].take(pa.array(first_rows[codes]))
    repeated = pc.not_equal(rows[LINE], first_lines)
    reason = f"{what} '{{{column}}}' stands already on line {{__first}}"
    return reject(rows.append_column("__first", first_lines), repeated, reason, log).drop_columns("__first")


def repeated_interactions(interactions: pa.Table, users: pa.Array, items: pa.Array) -> np.ndarray:
    """Positions (int64, ascending) of interactions whose (user, item, timestamp) stands before.

    `users` and `items` hold every id that occurs, once. Sorts one integer for each row rather than
    hashing strings: 25 million rows take about 800 MB.
    """
    pairs = pc.index_in(interactions["user_id"], value_set=users).to_numpy() * np.int64(len(items))
    pairs += pc.index_in(interactions["item_id"], value_set=items).to_numpy()
    order = np.argsort(pairs, kind="stable")
    same_pair = np.diff(pairs[order]) == 0
    if not same_pair.any():
        return np.empty(0, dtype=np.int64)
    candidates = order[np.append(same_pair, False) | np.append(False, same_pair)]
    pairs = pairs[candidates]
    times = interactions["timestamp"].take(pa.array(candidates)).cast(pa.int64()).to_numpy()
    by_time = np.lexsort((candidates, times, pairs))
    repeats = (np.diff(pairs[by_time]) == 0) & (np.diff(times[by_time]) == 0)
    return np.sort(candidates[by_time[1:][repeats]])
