"""JSON lines and Parquet as tables of strings, with the contract of `files.read_rows`.

Scalars become text, lists become their elements joined by LIST_SEPARATOR. A timestamp column of Parquet
stays a timestamp.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.domains.raw.columns import there_are
from pipeline.domains.raw.failures import CONTENT, LINE, FailureLog, reject_each, reject_undecodable
from pipeline.domains.raw.lines import LineBlock, read_line_blocks
from pipeline.domains.raw.sources import HEAD_BYTES, UNREADABLE, Source, kind_of, misnamed
from pipeline.domains.raw.texts import LARGEST_EXACT_FLOAT, LIST_SEPARATOR, MAX_DEPTH, as_texts, encodable
from pipeline.errors import DataError
from pipeline.schemas import TIMESTAMP

PARQUET_BATCH_ROWS = 131_072
PARQUET_BATCH_BYTES = 64 * 2**20
MICROS_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
MICROS_PER_DAY = 86_400_000_000

Parse = Callable[[str], dict[str, Any] | None]
_PARQUET_ERRORS = (
    *UNREADABLE,
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    pa.ArrowTypeError,
    KeyError,
    ValueError,
)
_json = msgspec.json.Decoder()
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
TOO_DEEP = f"a value is nested more than {MAX_DEPTH} deep"
MAX_KEYS = 1000  # remembered for a message


class JsonKeys:
    """Which of the `wanted` keys JSON records have had. Any record may leave a key out, but not all."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._missing = dict.fromkeys(wanted)
        self._found: dict[str, None] = {}

    def see(self, records: list[dict[str, Any]]) -> None:
        """Take note of the keys of `records`."""
        for name in [name for name in self._missing if any(name in record for record in records)]:
            del self._missing[name]
        if self._missing and len(self._found) < MAX_KEYS:
            for record in records:
                self._found.update(dict.fromkeys(map(encodable, record)))

    def require(self, where: str) -> None:
        """Raise `DataError` naming `where` for a wanted key that no record had, if there were records."""
        if self._missing and self._found:
            name = next(iter(self._missing))
            raise DataError(f"{where}: no record has the key {name!r}; {there_are(name, self._found)}")


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value of a record that cannot be read; only who asks for it has to know why."""

    reason: str


def parse_json(line: str) -> dict[str, Any] | None:
    """The object that `line` holds; None if it holds anything else. `NaN`, which Python writes, is null.

    What stands in one field is no reason to lose the others: a value that is no JSON is `Unreadable`.
    """
    value = _parsed(line)
    if value is None:
        value = _members(line)
    return value if isinstance(value, dict) else None


def _parsed(line: str) -> Any:
    """What a line of JSON holds; None if it is none. Lone surrogates, odd numbers and tabs are accepted."""
    try:
        return _json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    try:
        return _loads(line)
    except (ValueError, RecursionError):
        return None


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_constant=_constant, parse_int=_integer)


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def _integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return None


def _members(line: str) -> dict[str, Any] | None:
    """The members of an object, each value read by itself; None if the line is not made of members."""
    if not line.lstrip().startswith("{"):
        return None
    members: dict[str, Any] = {}
    depth, key, start, previous = 0, None, 0, ""
    for token in _TOKEN.finditer(line):
        mark = token[0][0]
        depth += (mark in "{[") - (mark in "}]")
        if (mark == "," and depth == 1) or (mark == "}" and depth == 0):
            if key is None:
                return None
            members[key], key = _value(line[start : token.start()].strip()), None
        elif mark == ":" and depth == 1 and key is None:
            name = _value(previous)
            if not isinstance(name, str):
                return None
            key, start = name, token.end()
        if depth == 0 and (mark != "}" or line[token.end() :].strip()):
            return None
        previous = token[0]
    return members if depth == 0 else None


def _value(text: str) -> Any:
    try:
        return _loads(text)
    except RecursionError:
        return Unreadable(TOO_DEEP)
    except ValueError as error:
        return Unreadable(f"a value is not JSON: {_complaint(error)}")


def _complaint(error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    message = error.msg.removesuffix(" at")
    return f"{message[0].lower()}{message[1:]} at character {error.pos + 1}"


def _why_no_record(line: str) -> str:
    """The reason why `line` is a bad row."""
    if re.match(r"\s*\[\s*(\{|$)", line):
        return "not a JSON object, but a JSON array; write each of its objects on one line (`jq -c .[]` does)"
    try:
        _loads(line)
    except RecursionError:
        return TOO_DEEP
    except ValueError as error:
        return f"not a JSON object: {_complaint(error)}"
    return "not a JSON object"


def parse_literal(line: str) -> dict[str, Any] | None:
    """The object of a line in JSON or in Python's notation for literals (Amazon's files of 2014)."""
    if isinstance(value := _parsed(line), dict):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes such as "\d"
            value = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, LookupError):
        return parse_json(line)
    return value if isinstance(value, dict) and all(isinstance(key, str) for key in value) else None


def read_json_rows(
    source: Source, columns: dict[str, str], log: FailureLog, keys: JsonKeys, parse: Parse = parse_json
) -> Iterator[pa.Table]:
    """Yield the columns `ours -> key` of a file of JSON lines, LINE and CONTENT; a missing key is null.

    `keys` takes note of the keys that were there.
    """
    for block in read_line_blocks(source):
        if len(block.text):
            log.count(len(block.text))
            yield _json_rows(block, columns, log, keys, parse)


def _json_rows(
    block: LineBlock, columns: dict[str, str], log: FailureLog, keys: JsonKeys, parse: Parse
) -> pa.Table:
    text, content = block.legible()
    lines = text.to_pylist()
    records = [parse(line) for line in lines]
    reasons = [
        None if record is not None else _why_no_record(line)
        for record, line in zip(records, lines, strict=True)
    ]
    rows = pa.table({LINE: block.numbers, CONTENT: content, "lost": block.text.is_null()})
    rows = reject_each(rows, pa.array(reasons, pa.string()), log)
    kept = [record for record in records if record is not None]
    keys.see(kept)
    return _with_columns(rows, kept, columns, log)


def _with_columns(
    rows: pa.Table, records: list[dict[str, Any]], columns: dict[str, str], log: FailureLog
) -> pa.Table:
    texts = {}
    reasons: list[str | None] = [None] * len(records)
    for ours, key in columns.items():
        values = [record.get(key) for record in records]
        for place, value in enumerate(values):
            if isinstance(value, Unreadable):
                reasons[place], values[place] = value.reason, None
        texts[ours], deep = as_texts(values)
        for place in np.flatnonzero(deep):
            reasons[place] = TOO_DEEP
    rows = pa.table({**texts, LINE: rows[LINE], CONTENT: rows[CONTENT], "lost": rows["lost"]})
    rows = reject_each(rows, pa.array(reasons, pa.string()), log)
    return reject_undecodable(rows, rows["lost"], columns, log).drop_columns("lost")


def read_parquet_rows(source: Source, columns: dict[str, str], log: FailureLog) -> Iterator[pa.Table]:
    """Yield the columns `ours -> column` of a Parquet file, LINE (the row, 1-based) and CONTENT (empty)."""
    try:
        with source.open() as file:
            parquet = pq.ParquetFile(file)
            _require(source, columns, parquet.schema_arrow.names)
            wanted = list(dict.fromkeys(columns.values()))
            first = 1
            for batch in parquet.iter_batches(_batch_rows(parquet.metadata), columns=wanted):
                log.count(batch.num_rows)
                table = _texts(source, pa.table(batch), columns)
                numbers = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
                yield table.append_column(LINE, numbers).append_column(CONTENT, pa.repeat("", batch.num_rows))
                first += batch.num_rows
    except _PARQUET_ERRORS as error:
        reason = _why_no_parquet(source) or str(error) or type(error).__name__
        raise DataError(f"{source}: not a readable Parquet file: {reason}") from error


def _why_no_parquet(source: Source) -> str | None:
    """What stands there instead of a Parquet file, if it can be told."""
    try:
        with source.open() as file:
            head = file.read(HEAD_BYTES)
    except UNREADABLE:
        return misnamed(source)
    if head.startswith(b"PAR1"):
        return None
    if (found := kind_of(head)) is not None:
        return f"this is {found[0]}"
    is_text = head.strip() and b"\0" not in head
    return "this looks like text; write `format: csv`, `tsv` or `jsonl`" if is_text else None


def _require(source: Source, columns: dict[str, str], found: list[str]) -> None:
    for name in columns.values():
        if found.count(name) != 1:
            raise DataError(f"{source}: there is no column {name!r}; {there_are(name, found)}")


def _texts(source: Source, table: pa.Table, columns: dict[str, str]) -> pa.Table:
    values = {}
    for ours, name in columns.items():
        try:
            values[ours] = _column_as_text(table[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise DataError(
                f"{source}: column {name!r} of type {table[name].type} is no text: {error}"
            ) from error
    return pa.table(values)


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Rows that are decoded at once: fewer where rows are large, as far as the file tells."""
    num_bytes = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    rows_of_a_batch = PARQUET_BATCH_BYTES * metadata.num_rows // max(num_bytes, 1)
    return min(max(rows_of_a_batch, 1), PARQUET_BATCH_ROWS)


def _column_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _column_as_text(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _in_microseconds(column).cast(TIMESTAMP)
    if pa.types.is_floating(kind):
        return _floats_as_text(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lists = column.cast(pa.list_(pa.string()))
        return pc.binary_join(pc.if_else(pc.is_null(lists), pa.scalar([], lists.type), lists), LIST_SEPARATOR)
    return column.cast(pa.string())


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times and dates as timestamp[us]; null where 64 bits do not hold them (a plain cast would wrap)."""
    kind = column.type
    micros_type = pa.timestamp("us", getattr(kind, "tz", None))
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(micros_type, safe=False)
    if pa.types.is_date32(kind):
        column, micros_per_unit = column.cast(pa.int32()).cast(pa.int64()), MICROS_PER_DAY
    else:
        unit = "ms" if pa.types.is_date64(kind) else kind.unit
        column, micros_per_unit = column.cast(pa.int64()), MICROS_PER_UNIT[unit]
    largest = np.iinfo(np.int64).max // micros_per_unit
    fits = pc.and_(pc.less_equal(column, largest), pc.greater_equal(column, -largest))
    micros = pc.multiply(pc.if_else(fits, column, None), micros_per_unit)
    return micros.cast(micros_type)


def _floats_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers without a fraction: pandas makes floats of integers when one is missing. NaN is null."""
    values = column.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), LARGEST_EXACT_FLOAT))
    integers = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, integers, values.cast(pa.string()))
