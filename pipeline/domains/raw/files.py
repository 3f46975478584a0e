"""A raw file of separated fields, read as tables of strings that remember where each row came from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.columns import listed, shortened, there_are
from pipeline.domains.raw.failures import CONTENT, LINE, UNDECODABLE, FailureLog, reject, reject_undecodable
from pipeline.domains.raw.fields import field_columns, split_fields
from pipeline.domains.raw.joined import join_records
from pipeline.domains.raw.lines import LineBlock, read_line_blocks
from pipeline.domains.raw.quotes import Quoting
from pipeline.domains.raw.sources import AnyFile
from pipeline.errors import DataError

MAX_LINE_SHOWN = 200


@dataclass(frozen=True)
class RawFormat:
    """How a file spells its rows.

    `columns`: the names of all fields; empty: the first line names them. `names`: what this package
    calls a column of the header; a type behind a colon (`item_id:token`) is dropped first.
    `fallback_encoding`: for the lines that are not UTF-8. `quoted`: by the rules of CSV, `quotes.Quoting`,
    unless the separator has several characters.
    """

    separator: str
    columns: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    quoted: bool = False
    escape: str | None = None
    fallback_encoding: str | None = None

    @property
    def quoting(self) -> Quoting | None:
        """How values are quoted, if they are."""
        return Quoting.of(self.separator, self.escape) if self.quoted else None


@dataclass(frozen=True)
class RawFile:
    """One raw file: the columns that must be there, and those that are read if they are there."""

    path: AnyFile
    format: RawFormat
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


def read_rows(raw: RawFile, log: FailureLog) -> Iterator[pa.Table]:
    """Yield tables of string columns (required, then the optional ones that exist), LINE and CONTENT.

    A row has the number of its first line: a quoted value may span lines. Broken and undecodable rows go to
    `log`. Raises `DataError` if the header lacks a required column.
    """
    header: tuple[str, ...] | None = raw.format.columns or None
    blocks = read_line_blocks(raw.path, raw.format.fallback_encoding)
    if (quoting := raw.format.quoting) is not None:
        blocks = join_records(blocks, quoting)
    for block in blocks:
        if header is None and len(block.text):
            header = _header(raw, block)
            block = LineBlock(block.numbers[1:], block.text[1:], block.raw[1:])
        if header and len(block.text):
            log.count(len(block.text))
            yield _columns(raw, block, header, log)


def read_all_rows(raw: RawFile, log: FailureLog) -> pa.Table:
    """The rows of a file of moderate size as one table; raises `DataError` if there are none."""
    parts = list(read_rows(raw, log))
    if not parts:
        raise DataError(f"{raw.path}: the file has no rows")
    return pa.concat_tables(parts).combine_chunks()


def _header(raw: RawFile, block: LineBlock) -> tuple[str, ...]:
    line, _ = LineBlock(block.numbers[:1], block.text[:1], block.raw[:1]).legible()
    first = split_fields(line, raw.format.separator, raw.format.quoting)[0].as_py() or []
    known = {*raw.format.names, *raw.required, *raw.optional}
    found = [name if name in known else name.split(":")[0] for name in map(str.strip, first)]
    header = tuple(raw.format.names.get(name, name) for name in found)
    missing = [name for name in raw.required if header.count(name) != 1]
    if missing:
        spelled = {ours: theirs for theirs, ours in raw.format.names.items()}
        looked_for = [spelled.get(name, name) for name in missing]
        raise DataError(
            f"{raw.path}: line {block.numbers[0]} should name the columns once each, but lacks"
            f" {listed(looked_for)}; {_what_stands_there(block, looked_for[0], first)}"
        )
    return header


def _what_stands_there(block: LineBlock, name: str, found: list[str]) -> str:
    """The columns; or the line as it is, if it has not several: then it is not read as it is meant."""
    if len(found) > 1:
        return there_are(name, found)
    _, line = LineBlock(block.numbers[:1], block.text[:1], block.raw[:1]).legible()
    shown = shortened(line[0].as_py(), MAX_LINE_SHOWN)
    return f"it reads {shown!r}: look at `separator` and `encoding`"


def _columns(raw: RawFile, block: LineBlock, header: tuple[str, ...], log: FailureLog) -> pa.Table:
    text, content = block.legible()
    fields = split_fields(text, raw.format.separator, raw.format.quoting, len(header))
    found = pc.fill_null(pc.list_value_length(fields), 0)
    lost = block.text.is_null()
    rows = pa.table({LINE: block.numbers, CONTENT: content, "fields": fields, "found": found, "lost": lost})
    rows = reject(rows, pc.and_(lost, pc.not_equal(found, len(header))), UNDECODABLE, log)
    rows = reject(rows, pc.is_null(rows["fields"]), "quotes do not match", log)
    rows = _with_fields(rows, len(header), log)
    wanted = (*raw.required, *(name for name in raw.optional if name in header))
    positions = tuple(header.index(name) for name in wanted)
    values = field_columns(rows["fields"].combine_chunks(), len(header), positions)
    table = pa.table([*values, rows[LINE], rows[CONTENT]], names=[*wanted, LINE, CONTENT])
    return reject_undecodable(table, rows["lost"], wanted, log)


def _with_fields(rows: pa.Table, num_fields: int, log: FailureLog) -> pa.Table:
    """The rows with `num_fields` fields. A stray quote can take good lines along: their number is said."""
    if not pc.any(pc.not_equal(rows["found"], num_fields)).as_py():
        return rows
    rows = rows.append_column("num_lines", pc.add(pc.count_substring(rows[CONTENT], "\n"), 1))
    reason = f"{{found}} fields instead of {num_fields}"
    wrong = pc.not_equal(rows["found"], num_fields)
    joined = pc.greater(rows["num_lines"], 1)
    rows = reject(rows, pc.and_(wrong, joined), f"{reason}, and quotes around {{num_lines}} lines", log)
    return reject(rows, pc.not_equal(rows["found"], num_fields), reason, log)
