"""Cluster numbers that keep their meaning from night to night."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import linear_sum_assignment

from pipeline.groups.users import NO_INTERACTIONS
from pipeline.schemas import GROUPS, conform


def align_user_groups(groups: pa.Table, earlier: pa.Table) -> pa.Table:
    """Rename the user clusters of `groups` after those of `earlier` (schema GROUPS both).

    Clusters that are fitted again come out in another order. Each takes the name of the earlier cluster
    that it shares most users with, so that all together share as many as possible; clusters that share
    none take the names that are left. Deterministic; items, and users without interactions, keep theirs.
    """
    names = _clusters(groups)
    old_names = _clusters(earlier)
    if not names or not old_names:
        return groups
    new = dict(
        zip(names, _matched(_overlaps(groups, earlier, names, old_names), names, old_names), strict=True)
    )
    is_cluster = pc.and_(pc.equal(groups["kind"], "user"), pc.is_in(groups["group"], pa.array(names)))
    positions = pc.index_in(groups["group"], value_set=pa.array(names))
    renamed = pa.array([new[name] for name in names]).take(positions.combine_chunks())
    column = pc.if_else(is_cluster.combine_chunks(), renamed, groups["group"].combine_chunks())
    aligned = groups.set_column(groups.schema.get_field_index("group"), "group", column)
    return conform(aligned, GROUPS, "aligned groups")


def _clusters(groups: pa.Table) -> list[str]:
    users = groups.filter(pc.equal(groups["kind"], "user"))
    return sorted(name for name in pc.unique(users["group"]).to_pylist() if name != NO_INTERACTIONS)


def _overlaps(groups: pa.Table, earlier: pa.Table, names: list[str], old_names: list[str]) -> np.ndarray:
    """Users shared by each cluster (rows, `names`) and each earlier one (columns, `old_names`)."""
    users = groups.filter(pc.equal(groups["kind"], "user"))
    before = earlier.filter(pc.equal(earlier["kind"], "user"))
    positions = pc.index_in(before["entity_id"], value_set=users["entity_id"].combine_chunks())
    rows = pc.index_in(users["group"].take(positions), value_set=pa.array(names))
    columns = pc.index_in(before["group"], value_set=pa.array(old_names))
    rows, columns = (pc.fill_null(codes, -1).to_numpy() for codes in (rows, columns))
    shared = (rows >= 0) & (columns >= 0)
    cells = rows[shared].astype(np.int64) * len(old_names) + columns[shared]
    return np.bincount(cells, minlength=len(names) * len(old_names)).reshape(len(names), len(old_names))


def _matched(overlaps: np.ndarray, names: list[str], old_names: list[str]) -> list[str]:
    """The new name of each of `names`."""
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    taken = {
        int(row): old_names[column]
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column]
    }
    used = set(taken.values())
    # A cluster without a predecessor keeps its own name if that is free.
    for row, name in enumerate(names):
        if row not in taken and name not in used:
            taken[row] = name
            used.add(name)
    free = iter(name for name in sorted({*names, *old_names}) if name not in used)
    return [taken[row] if row in taken else next(free) for row in range(len(names))]
