"""The record of raw rows that cannot be used: nothing is dropped without a line here."""

from collections.abc import Iterable, Sequence
from string import Formatter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.sources import AnyFile
from pipeline.errors import DataError
from pipeline.printable import plural
from pipeline.schemas import FAILED, conform

MAX_CONTENT_CHARACTERS = 200
MAX_VALUE_CHARACTERS = 60
MAX_LISTED = 200_000  # bad rows of one file that are kept; of more only the number is

REPLACEMENT = "\ufffd"  # stands for bytes that do not decode
UNDECODABLE = "bytes that do not decode as text"

LINE = "__line"  # int64, 1-based
CONTENT = "__content"  # string, the raw line

UNLISTED = " more rows are bad; they are not listed"  # behind the number, in place of these rows
_BAD = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("content", pa.string())])


class FailureLog:
    """The bad rows of one raw file, and the share of them that is tolerated."""

    def __init__(self, path: AnyFile) -> None:
        self.path = path
        self.num_rows = 0
        self.num_bad = 0
        self._num_listed = 0
        self._bad: list[pa.Table] = []

    def count(self, num_rows: int) -> None:
        """Note that `num_rows` more rows of the file were read, good ones and bad ones."""
        self.num_rows += num_rows

    def add(self, lines: pa.Array, reasons: pa.Array, contents: pa.Array) -> None:
        """Record bad rows: 1-based line numbers, reasons and raw text, aligned."""
        self.num_bad += len(lines)
        listed = min(len(lines), MAX_LISTED - self._num_listed)
        if listed:
            contents = pc.utf8_slice_codeunits(contents, 0, MAX_CONTENT_CHARACTERS)
            self._bad.append(pa.table([lines, reasons, contents], schema=_BAD).slice(0, listed))
            self._num_listed += listed

    def check(self, max_bad_fraction: float) -> None:
        """Raise `DataError` if the file had no row, no good row, or too many bad ones."""
        check_bad_rows([self], max_bad_fraction)

    def table(self) -> pa.Table:
        """The bad rows as a FAILED table, in the order of the file; `file` is its whole location."""
        bad = pa.concat_tables([_BAD.empty_table(), *self._bad]).sort_by("line")
        if self.num_bad > self._num_listed:
            rest = f"{self.num_bad - self._num_listed}{UNLISTED}"
            bad = pa.concat_tables([bad, pa.table([[None], [rest], [None]], schema=_BAD)])
        num_rows = bad.num_rows
        columns = {
            "stage": pa.repeat("read", num_rows),
            "file": pa.repeat(str(self.path), num_rows),
            "line": bad["line"],
            "entity_id": pa.nulls(num_rows, pa.string()),
            "kind": pa.nulls(num_rows, pa.string()),
            "reason": bad["reason"],
            "content": bad["content"],
        }
        return conform(pa.table(columns), FAILED, f"bad rows of {self.path}")


def check_bad_rows(logs: Sequence[FailureLog], max_bad_fraction: float, place: str | None = None) -> None:
    """Raise `DataError` if the files of one table had no row, no good row, or too many bad ones.

    `place` names a table that has no good row; None: its first file does.
    """
    num_rows = sum(log.num_rows for log in logs)
    num_bad = sum(log.num_bad for log in logs)
    where = f"{logs[0].path}" + (f" and {plural(len(logs) - 1, 'more file')}" if len(logs) > 1 else "")
    if not num_rows:
        raise DataError(f"{where}: the file has no rows")
    if num_bad <= max_bad_fraction * num_rows and num_bad < num_rows:
        return
    worst = next(log for log in logs if log.num_bad)
    first = worst.table().slice(0, 1).to_pylist()[0]
    allowed = f"more than dataset.max_bad_fraction={max_bad_fraction:g} allows"
    verb = "is" if num_bad == 1 else "are"
    verdict, names_file = f"{where}: {num_bad} of {num_rows} rows {verb} bad, {allowed}", len(logs) > 1
    if num_bad == num_rows:
        none = "its only row is not" if num_rows == 1 else f"none of {num_rows} rows is"
        verdict = f"{place or where}: {none} good"
        names_file = names_file or place is not None
    of_file = f" of {worst.path}" if names_file else ""
    raise DataError(f"{verdict}; first, line {first['line']}{of_file}: {first['reason']}")


def reject(rows: pa.Table, bad: pa.Array | pa.ChunkedArray, reason: str, log: FailureLog) -> pa.Table:
    """Record the rows where `bad` is true in `log` and return the others.

    `rows` has the columns LINE and CONTENT. `{column}` in `reason` stands for the row's value.
    """
    if not pc.any(bad).as_py():
        return rows
    rejected = rows.filter(bad)
    log.add(rejected[LINE], _reasons(rejected, reason), rejected[CONTENT])
    return rows.filter(pc.invert(bad))


def reject_each(rows: pa.Table, reasons: pa.Array, log: FailureLog) -> pa.Table:
    """As `reject`, with a reason for each row; null: the row is good."""
    if reasons.null_count == len(reasons):
        return rows
    bad = pc.is_valid(reasons)
    rejected = rows.filter(bad)
    log.add(rejected[LINE], reasons.drop_null(), rejected[CONTENT])
    return rows.filter(pc.invert(bad))


def reject_undecodable(
    rows: pa.Table, undecodable: pa.Array | pa.ChunkedArray, columns: Iterable[str], log: FailureLog
) -> pa.Table:
    """`rows` without those of the `undecodable` lines that hold U+FFFD in one of `columns`.

    What else stands on such a line costs nothing: nobody reads it.
    """
    if not pc.any(undecodable).as_py():
        return rows
    bad = pa.repeat(False, rows.num_rows)
    for column in columns:
        bad = pc.or_(bad, pc.fill_null(pc.match_substring(rows[column], REPLACEMENT), False))
    return reject(rows, pc.and_(bad, undecodable), UNDECODABLE, log)


def _reasons(rows: pa.Table, reason: str) -> pa.ChunkedArray | pa.Array:
    pieces: list[pa.ChunkedArray | str] = []
    for text, column, _, _ in Formatter().parse(reason):
        pieces.append(text)
        if column is not None:
            value = pc.fill_null(rows[column].cast(pa.string()), "")
            pieces.append(pc.utf8_slice_codeunits(value, 0, MAX_VALUE_CHARACTERS))
    if len(pieces) == 1:
        return pa.repeat(pieces[0], rows.num_rows)
    return pc.binary_join_element_wise(*pieces, "")
