"""Lines split into fields."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def split_fields(lines: pa.Array, separator: str, quoted: bool, escape: str | None = None) -> pa.Array:
    """Split each line at `separator` (any number of characters) into a list of strings.

    With `quoted`, lines that hold a double quote follow the rules of CSV (RFC 4180, one line a row);
    a line whose quotes do not match becomes null. A null line stays null. `escape` is a character that
    makes a quote inside quotes part of the value.
    """
    fields = pc.split_pattern(lines, separator)
    if not quoted:
        return fields
    has_quote = pc.fill_null(pc.match_substring(lines, '"'), False)
    if not pc.any(has_quote).as_py():
        return fields
    parsed = _quoted_fields(lines.filter(has_quote), separator, escape)
    order = np.where(has_quote, len(lines) + np.cumsum(has_quote) - 1, np.arange(len(lines)))
    return pa.concat_arrays([fields, parsed]).take(pa.array(order))


def _quoted_fields(lines: pa.Array, separator: str, escape: str | None) -> pa.Array:
    """The fields of lines with quotes. Lines that quote every field, and nothing else, are cut at once."""
    joint = f'"{separator}"'
    num_fields = pc.add(pc.count_substring(lines, joint), 1)
    is_plain = pc.and_(pc.starts_with(lines, '"'), pc.ends_with(lines, '"'))
    is_plain = pc.and_(is_plain, pc.equal(pc.count_substring(lines, '"'), pc.multiply(num_fields, 2)))
    if escape is not None:
        is_plain = pc.and_not(is_plain, pc.match_substring(lines, escape))
    if pc.all(is_plain).as_py():
        return pc.split_pattern(pc.utf8_slice_codeunits(lines, 1, -1), joint)
    rows = [_csv_fields(line, separator, escape) for line in lines.to_pylist()]
    return pa.array(rows, pa.list_(pa.string()))


def _csv_fields(line: str, separator: str, escape: str | None) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=separator, escapechar=escape, strict=True))
    except (csv.Error, StopIteration):
        return None


def field_columns(fields: pa.Array, num_fields: int, wanted: tuple[int, ...]) -> list[pa.Array]:
    """The fields at the positions `wanted` of rows that all have `num_fields` fields."""
    flat = fields.flatten()
    return [flat.take(pa.array(np.arange(position, len(flat), num_fields))) for position in wanted]
