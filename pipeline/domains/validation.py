"""What makes a row of a domain table valid, for every reader. Invalid rows go to the file's FailureLog."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import LINE, FailureLog, reject
from pipeline.domains.tables import with_column
from pipeline.errors import DataError
from pipeline.schemas import TIMESTAMP

MAX_TIMESTAMP_SEC = 253_402_300_799  # the end of the year 9999; larger values are milliseconds

# By the years in which nearly all interactions happened, 1980 to 2100, times say in which unit they are.
_LIKELY_SEC = (315_532_800.0, 4_102_444_800.0)
_NEARLY_ALL, _HARDLY_ANY = 0.9, 0.1
_PER_SEC = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_UNITS = {
    "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso": "ISO dates",
}  # fmt: skip
_DATE = r"^\s*(?:19|20)[0-9]{2}(?:-(?:0[1-9]|1[0-2])-|(?:0[1-9]|1[0-2]))(?:0[1-9]|[12][0-9]|3[01])(?:[T ]|$)"

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
    numbers = _as_numbers(rows[column])
    finite = pc.is_finite(numbers)
    return reject(rows, pc.invert(finite), reason, log), numbers.filter(finite)


def _as_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """`texts` as float64, NaN where one is no number."""
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(texts)
        numeric = pc.match_substring_regex(text, _NUMBER)
        return pc.if_else(numeric, text, "nan").cast(pa.float64())


def require_unit(times: pa.ChunkedArray, unit: str, where: str, remedy: str = "") -> None:
    """Raise `DataError` if `times` are plainly not in `unit` (s, ms, us, iso), naming the likely unit.

    Texts, or TIMESTAMP, which somebody may have made of numbers in the wrong unit. `remedy`: what to do about
    it, `{unit}` in it is the likely one. Times that no unit puts between 1980 and 2100 are accepted.
    """
    is_typed = pa.types.is_timestamp(times.type)
    texts = times.drop_null()
    if is_typed:
        numbers = pc.multiply(texts.cast(pa.int64()).cast(pa.float64(), safe=False), 1e3)
    else:
        numbers = _as_numbers(texts)
    low, high = _LIKELY_SEC
    fitting = {
        name: pc.and_(pc.greater_equal(numbers, low * per_sec), pc.less(numbers, high * per_sec))
        for name, per_sec in _PER_SEC.items()
    }
    if not is_typed:
        fitting["iso"] = pc.match_substring_regex(texts, _DATE)
    shares = {name: pc.mean(fits).as_py() or 0.0 for name, fits in fitting.items()}
    likely, given = max(shares, key=lambda name: shares[name]), "ns" if is_typed else unit
    if shares[likely] <= _NEARLY_ALL or shares[given] >= _HARDLY_ANY:
        return
    example = texts.filter(fitting[likely])[0].as_py()
    if is_typed:
        raise DataError(
            f"{where} holds times such as {example:%Y-%m-%d %H:%M:%S.%f}: {_UNITS[likely]} were taken for a "
            "smaller unit when it was written; write it again"
        )
    if likely == "ns":
        remedy = remedy and "divide them by 1,000 and write `unit: us`"
    raise DataError(
        f"{where} holds {_UNITS[likely]}, such as {example.strip()}, and not {_UNITS[unit]}"
        + (f"; {remedy.format(unit=likely)}" if remedy else "")
    )


def with_known(rows: pa.Table, column: str, known: pa.Array, what: str, log: FailureLog) -> pa.Table:
    """The rows whose id in `column` is one of `known`; `what` is the kind of entity."""
    unknown = pc.invert(pc.is_in(rows[column], value_set=known))
    return reject(rows, unknown, f"unknown {what} '{{{column}}}'", log)


def with_unique(rows: pa.Table, column: str, what: str, log: FailureLog) -> pa.Table:
    """The first row of each id in `column`; the later ones name the line of the first."""
    codes = pc.index_in(rows[column], value_set=pc.unique(rows[column])).to_numpy()
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
