"""The rows of a table's files, whatever their format, under this package's column names."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import FailureLog, check_bad_rows
from pipeline.domains.raw.files import RawFile, RawFormat, read_rows
from pipeline.domains.raw.records import JsonKeys, Parse, parse_json, read_json_rows, read_parquet_rows
from pipeline.domains.raw.sources import Source, find_sources
from pipeline.domains.raw.watch import is_watched
from pipeline.errors import ConfigError, DataError
from pipeline.settings import RawTableSettings

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_MESSAGES = 10.0
FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".brotli": "parquet",
}  # fmt: skip
IDS = ("user_id", "item_id")


@dataclass(frozen=True)
class RawTable:
    """The files of one table, and the columns to read: our name -> the files' name."""

    place: str  # where the settings stand, for messages
    settings: RawTableSettings
    base: str | None
    columns: dict[str, str]
    parse: Parse = parse_json
    may_lack_keys: bool = False  # JSON: the keys are of a published layout, whose records have them or not
    logs: list[FailureLog] = field(default_factory=list)  # one for each file that was read


def read_table_rows(table: RawTable) -> Iterator[tuple[FailureLog, pa.Table]]:
    """Yield the rows of every file, string columns with LINE and CONTENT, with the log of their file.

    A typed column `timestamp` stays what it is. Texts that the settings call null values are null. Raises
    `DataError` for missing files and columns, and at the end for a key that no record of JSON files had:
    writers leave nulls out, but not all of a column.
    """
    sources = find_sources(table.settings.files, table.base, f"{table.place}.files")
    keys = JsonKeys(() if table.may_lack_keys else table.columns.values())
    for number, source in enumerate(sources, 1):
        log = FailureLog(source)
        table.logs.append(log)
        last_message = time.monotonic()
        for rows in _rows_of(source, table, log, keys):
            yield log, _as_texts(rows, table)
            if not is_watched() and time.monotonic() - last_message > SECONDS_BETWEEN_MESSAGES:
                logger.info(
                    "reading %s (file %d of %d): %d rows", source.name, number, len(sources), log.num_rows
                )
                last_message = time.monotonic()
    keys.require(f"{table.place}: {', '.join(source.name for source in sources[:3])}")


def _rows_of(source: Source, table: RawTable, log: FailureLog, keys: JsonKeys) -> Iterator[pa.Table]:
    kind = _format(source, table)
    if kind == "jsonl":
        return read_json_rows(source, table.columns, log, keys, table.parse)
    if kind == "parquet":
        return read_parquet_rows(source, table.columns, log)
    return _text_rows(source, table, log, kind)


def _format(source: Source, table: RawTable) -> str:
    if table.settings.format != "auto":
        return table.settings.format
    kind = FORMATS.get(source.extension, "csv" if table.settings.separator else None)
    if kind is None:
        raise ConfigError(f"{table.place}.format: {source.name} does not say; set csv, tsv, jsonl or parquet")
    return kind


def _text_rows(source: Source, table: RawTable, log: FailureLog, kind: str) -> Iterator[pa.Table]:
    """Each column of the file once, then under every name that we have for it."""
    settings = table.settings
    wanted = tuple(dict.fromkeys(table.columns.values()))
    text = RawFormat(
        separator=settings.separator or ("," if kind == "csv" else "\t"),
        columns=tuple(settings.columns),
        quoted=kind == "csv",
        escape=settings.escape,
        fallback_encoding=None if settings.encoding == "utf-8" else settings.encoding,
    )
    missing = [name for name in wanted if settings.columns and settings.columns.count(name) != 1]
    if missing:
        raise ConfigError(f"{table.place}.columns: does not name {missing[0]!r} once")
    for rows in read_rows(RawFile(source, text, wanted), log):
        values = {ours: rows[name] for ours, name in table.columns.items()}
        yield pa.table(
            {**values, **{name: rows[name] for name in rows.column_names if name.startswith("__")}}
        )


def _as_texts(rows: pa.Table, table: RawTable) -> pa.Table:
    nothing = pa.array(table.settings.null_values, pa.string())
    for position, name in enumerate(table.columns):
        column = rows[name]
        if pa.types.is_timestamp(column.type):
            if name == "timestamp":
                continue
            column = _moments_as_texts(column, is_id=name in IDS)
        column = pc.if_else(pc.is_in(column, value_set=nothing), None, column)
        rows = rows.set_column(position, name, column)
    return rows


def _moments_as_texts(column: pa.ChunkedArray, is_id: bool) -> pa.ChunkedArray:
    """Days, as prompts show them; ids keep the time of the day, unless it is midnight."""
    days = pc.strftime(column, "%Y-%m-%d")
    if not is_id:
        return days
    is_midnight = pc.equal(column, pc.floor_temporal(column, unit="day"))
    return pc.if_else(is_midnight, days, pc.strftime(column, "%Y-%m-%dT%H:%M:%S"))


def check_rows(table: RawTable, max_bad_fraction: float) -> None:
    """Raise `DataError` if the table has no row, no good row, or too many bad ones."""
    require_rows(table)
    check_bad_rows(table.logs, max_bad_fraction, table.place)


def require_rows(table: RawTable) -> None:
    """Raise `DataError` if no file of the table has a row."""
    if not any(log.num_rows for log in table.logs):
        raise DataError(f"{table.place}: {', '.join(str(log.path) for log in table.logs[:3])}: no rows")
