"""Sets of entity ids as pyarrow arrays: columnar, so that millions of them are no Python objects."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import Kind


def ids_of(table: pa.Table, kind: Kind | None = None) -> pa.Array:
    """The column `entity_id` of `table`, of the rows of `kind` or of all."""
    rows = table if kind is None else table.filter(pc.equal(table["kind"], kind))
    column = rows["entity_id"].combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def within(ids: pa.Array, others: pa.Array) -> pa.Array:
    """Those of `ids` that are in `others`, in their order."""
    return ids.filter(pc.is_in(ids, value_set=others))


def without(ids: pa.Array, others: pa.Array) -> pa.Array:
    """Those of `ids` that are not in `others`, in their order."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others)))
