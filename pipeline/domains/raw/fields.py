"""Lines split into fields."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipeline.domains.raw.lines import UTF8_BOM
from pipeline.domains.raw.quotes import Quoting

LISTS = pa.list_(pa.string())


def split_fields(
    lines: pa.Array, separator: str, quoting: Quoting | None = None, num_fields: int | None = None
) -> pa.Array:
    """Split each line at `separator` (any number of characters) into a list of strings.

    With `quoting`, whose separator is the same one, lines are records of CSV; one whose quotes do not match
    becomes null. A null line stays null. `num_fields`: how many most lines have; it changes nothing but the
    speed.
    """
    if quoting is None:
        return pc.split_pattern(lines, separator)
    special = quoting.are_special(lines)
    places = np.flatnonzero(special)
    if not places.size:
        return pc.split_pattern(lines, separator)
    plain = np.flatnonzero(pc.invert(special))
    split = pc.split_pattern(lines.take(pa.array(plain)), separator)
    records = _records(lines.take(pa.array(places)), quoting, num_fields)
    return _in_order([(plain, split), (places, records)])


def _records(lines: pa.Array, quoting: Quoting, num_fields: int | None) -> pa.Array:
    """The fields of records with quotes, those that pyarrow reads as this package does read by pyarrow."""
    whole = quoting.are_whole(lines)
    simple = _simple(lines, quoting) if num_fields else pa.repeat(False, len(lines))
    places = np.flatnonzero(pc.and_(whole, simple))
    fields, refused = _read_csv(lines.take(pa.array(places)), quoting.separator, num_fields or 0)
    read = np.delete(places, refused)
    others = np.delete(np.arange(len(lines)), read)
    is_whole = whole.take(pa.array(others)).to_pylist()
    rows = [
        quoting.fields(line) if well else None
        for line, well in zip(lines.take(pa.array(others)).to_pylist(), is_whole, strict=True)
    ]
    return _in_order([(read, fields), (others, pa.array(rows, LISTS))])


def _simple(lines: pa.Array, quoting: Quoting) -> pa.Array:
    """Lines without escapes and carriage returns, which pyarrow takes for more than we do."""
    if not quoting.separator.isascii():
        return pa.repeat(False, len(lines))
    odd = pc.match_substring(lines, "\r")
    if quoting.escape is not None:
        odd = pc.or_(odd, pc.match_substring(lines, quoting.escape))
    return pc.invert(odd)


def _read_csv(records: pa.Array, separator: str, num_fields: int) -> tuple[pa.Array, list[int]]:
    """The fields of the records that have `num_fields`, and which of them have not."""
    if not len(records):
        return pa.array([], LISTS), []
    refused: list[int] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        refused.append(row.number - 1)
        return "skip"

    content = pc.binary_join(pa.ListArray.from_arrays([0, len(records)], records), "\n")[0].as_buffer()
    names = [str(position) for position in range(num_fields)]
    table = pa_csv.read_csv(
        pa.BufferReader(UTF8_BOM + content.to_pybytes()),  # pyarrow drops one byte order mark: not a value's
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=content.size + 8, column_names=names),
        parse_options=pa_csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=refuse
        ),
        convert_options=pa_csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(names, pa.string())
        ),
    )
    return _rows_of([column.combine_chunks() for column in table.columns]), refused


def _rows_of(columns: Sequence[pa.Array]) -> pa.Array:
    """The lists of the n-th values of `columns`."""
    num_rows = len(columns[0])
    order = np.arange(len(columns) * num_rows).reshape(len(columns), num_rows).T.ravel()
    offsets = np.arange(0, len(order) + 1, len(columns), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(columns).take(pa.array(order)))


def _in_order(parts: Sequence[tuple[np.ndarray, pa.Array]]) -> pa.Array:
    """One array of arrays whose elements belong at the given places."""
    filled = [(places, array) for places, array in parts if len(array)]
    if len(filled) == 1:
        return filled[0][1]
    if not filled:
        return pa.array([], LISTS)
    places = np.concatenate([places for places, _ in filled])
    return pa.concat_arrays([array for _, array in filled]).take(pa.array(np.argsort(places)))


def field_columns(fields: pa.Array, num_fields: int, wanted: tuple[int, ...]) -> list[pa.Array]:
    """The fields at the positions `wanted` of rows that all have `num_fields` fields."""
    flat = fields.flatten()
    return [flat.take(pa.array(np.arange(position, len(flat), num_fields))) for position in wanted]
