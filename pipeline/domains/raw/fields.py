"""Lines split into fields."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def split_fields(lines: pa.Array, separator: str, quoted: bool) -> pa.Array:
    """Split each line at `separator` (any number of characters) into a list of strings.

    With `quoted`, lines that hold a double quote follow the rules of CSV (RFC 4180, one line a row);
    a line whose quotes do not match becomes null. A null line stays null.
    """
    fields = pc.split_pattern(lines, separator)
    if not quoted:
        return fields
    has_quote = pc.fill_null(pc.match_substring(lines, '"'), False)
    if not pc.any(has_quote).as_py():
        return fields
    parsed = pa.array(
        [_csv_fields(line, separator) for line in lines.filter(has_quote).to_pylist()], fields.type
    )
    order = np.where(has_quote, len(lines) + np.cumsum(has_quote) - 1, np.arange(len(lines)))
    return pa.concat_arrays([fields, parsed]).take(pa.array(order))


def _csv_fields(line: str, separator: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None


def field_columns(fields: pa.Array, num_fields: int, wanted: tuple[int, ...]) -> list[pa.Array]:
    """The fields at the positions `wanted` of rows that all have `num_fields` fields."""
    flat = fields.flatten()
    return [flat.take(pa.array(np.arange(position, len(flat), num_fields))) for position in wanted]
