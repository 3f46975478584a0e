"""The tables of a domain."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schemas import ITEMS, TEXT, USERS, conform
from pipeline.storage.files import write_parquet
from pipeline.storage.location import parquet_dataset


@dataclass(frozen=True)
class DomainTables:
    """What a reader makes of raw files.

    Schemas: USERS, ITEMS, INTERACTIONS (or INTERACTIONS_WITH_TEXT) and FAILED of `pipeline.schemas`. Ids are
    unique, each interaction names a known user and item, and (user_id, item_id, timestamp) identifies it.
    """

    users: pa.Table
    items: pa.Table
    interactions: pa.Table
    failed: pa.Table


def write_domain(tables: DomainTables, folder: Path) -> None:
    """Write users.parquet, items.parquet and interactions.parquet to `folder`, each atomically."""
    write_parquet(tables.users, folder / "users.parquet")
    write_parquet(tables.items, folder / "items.parquet")
    write_parquet(tables.interactions, folder / "interactions.parquet")


def item_titles(folder: Path, ids: Collection[str]) -> dict[str, str]:
    """The titles of those of the items `ids` that items.parquet in `folder` knows; none if it is missing."""
    path = folder / "items.parquet"
    if not path.exists():
        return {}
    is_asked_for = pc.is_in(pc.field("item_id"), pa.array(list(ids), pa.string()))
    items = parquet_dataset([path], ITEMS).to_table(columns=["item_id", "title"], filter=is_asked_for)
    return dict(zip(*(items[name].to_pylist() for name in ("item_id", "title")), strict=True))


def with_column(rows: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """`rows` with `values` in place of what `column` holds."""
    return rows.set_column(rows.schema.get_field_index(column), column, values)


def attribute_maps(columns: Mapping[str, pa.Array], num_rows: int) -> pa.MapArray:
    """One map of strings for each row, from string columns of `num_rows` values; nulls are left out."""
    present = np.array([column.is_valid() for column in columns.values()], dtype=bool)
    present = present.reshape(len(columns), num_rows)
    rows, keys = np.nonzero(present.T)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]).astype(np.int32)
    names = pa.array(list(columns), TEXT).take(pa.array(keys))
    values = pa.concat_arrays([pa.array([], TEXT), *(column.cast(TEXT) for column in columns.values())])
    return pa.MapArray.from_arrays(pa.array(offsets), names, values.take(pa.array(keys * num_rows + rows)))


def users_of(interactions: pa.Table) -> pa.Table:
    """USERS for those who interacted, in the order of their first row, without attributes."""
    ids = pc.unique(interactions["user_id"])
    columns = {"user_id": ids, "attributes": attribute_maps({}, len(ids))}
    return conform(pa.table(columns), USERS, "users of the interactions", unique=("user_id",))
