"""The k-core of a domain: only users and items with at least k interactions among each other."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.tables import DomainTables
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


def k_core(tables: DomainTables, k: int, field: str) -> DomainTables:
    """`tables` without users and items that have fewer than `k` interactions with those that stay.

    What leaves is no bad row: it is counted in the log. With k=1 everything stays. Raises `DataError`
    naming `field`.k_core if nothing is left.
    """
    if k <= 1:
        return tables
    users = pc.index_in(tables.interactions["user_id"], value_set=_ids(tables.users, "user_id")).to_numpy()
    items = pc.index_in(tables.interactions["item_id"], value_set=_ids(tables.items, "item_id")).to_numpy()
    kept = core_mask(users, items, k)
    if not kept.any():
        raise DataError(f"{field}.k_core={k}: no user and item have so many interactions with each other")
    core = DomainTables(
        _rows(tables.users, users[kept]),
        _rows(tables.items, items[kept]),
        tables.interactions.filter(pa.array(kept)),
        tables.failed,
    )
    logger.info(
        "%d-core: %d of %d users, %d of %d items, %d of %d interactions",
        k, core.users.num_rows, tables.users.num_rows, core.items.num_rows, tables.items.num_rows,
        core.interactions.num_rows, tables.interactions.num_rows,
    )  # fmt: skip
    return core


def core_mask(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Which of the pairs (users[i], items[i]), codes from 0, belong to the k-core. Repeated pairs count."""
    kept = np.ones(len(users), dtype=bool)
    num_kept = -1
    while num_kept != (num_kept := int(kept.sum())):
        for codes in (users, items):
            counts = np.bincount(codes[kept], minlength=int(codes.max(initial=0)) + 1)
            kept &= counts[codes] >= k
    return kept


def _rows(entities: pa.Table, places: np.ndarray) -> pa.Table:
    """The rows of `entities` at `places`, in the table's order. Unlike `take` this joins no chunks."""
    is_kept = np.zeros(entities.num_rows, dtype=bool)
    is_kept[places] = True
    return entities.filter(pa.array(is_kept))


def _ids(table: pa.Table, name: str) -> pa.Array:
    ids = table[name].combine_chunks()
    return pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
