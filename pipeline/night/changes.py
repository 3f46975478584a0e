"""What became of each entity since the snapshot in force (schema CHANGES).

| change | prompt tonight | row in force | in the next snapshot |
|---|---|---|---|
| new | yes | none | the text of tonight; absent if it failed |
| changed | yes | other prompt or fingerprint | the text of tonight; the row in force if it failed |
| carried | yes | same prompt, same fingerprint | the row in force |
| unprompted | none could be written | perhaps | the row in force, if there is one |
| outside | not chosen (`limit`, `offset`) | yes | the row in force |
| withheld | no | made with later events than tonight's cutoff allows | - |
| gone | no longer in the data | yes | - |

So a sample never shrinks the snapshot: an entity leaves it only when it is gone from the data tables. A
row made with a later `history_cutoff` than tonight's counts as if it were not there.
"""

from datetime import datetime
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.id_sets import ids_of, within, without
from pipeline.schemas import CHANGES, GROUPS, KNOWLEDGE, TEXT, TIMESTAMP, conform
from pipeline.settings import KINDS, Kind

Change = Literal["new", "changed", "carried", "unprompted", "outside", "withheld", "gone"]
ALL_CHANGES: tuple[str, ...] = get_args(Change)
PLANNED = ("new", "changed")
# Of these the row in force stays, if there is one and tonight wrote no other.
KEEPS_ROW = ("changed", "carried", "unprompted", "outside")
BASE_COLUMNS = ["kind", "entity_id", "group", "prompt_hash", "fingerprint", "history_cutoff"]
BASE = pa.schema([KNOWLEDGE.field(name) for name in BASE_COLUMNS])


def compare(
    base: pa.Table,
    prompts: pa.Table,
    chosen: pa.Table,
    known: pa.Table,
    fingerprint: str,
    cutoff: datetime | None,
) -> pa.Table:
    """One CHANGES row for each entity of tonight and of the snapshot in force.

    `base` (schema BASE): the rows in force. `prompts`: kind, entity_id, prompt_hash of tonight's prompts.
    `chosen` and `known` (schema GROUPS): the entities that tonight is about, and all of the data tables.
    """
    tables = [CHANGES.empty_table()]
    for kind in KINDS:
        tables += _compare_kind(
            kind,
            _of_kind(base, kind),
            _of_kind(prompts, kind),
            _of_kind(chosen, kind),
            _of_kind(known, kind),
            fingerprint,
            cutoff,
        )
    return conform(pa.concat_tables(tables), CHANGES, "changes", unique=("kind", "entity_id"))


def _compare_kind(
    kind: Kind,
    base: pa.Table,
    prompts: pa.Table,
    chosen: pa.Table,
    known: pa.Table,
    fingerprint: str,
    cutoff: datetime | None,
) -> list[pa.Table]:
    allowed = _allowed(base, cutoff)
    usable, withheld = base.filter(allowed), base.filter(pc.invert(allowed))
    planned = ids_of(prompts)
    others = without(ids_of(usable), planned)
    hidden = without(ids_of(withheld), planned)
    unprompted = without(ids_of(chosen), planned)
    in_base = pa.concat_arrays([others, hidden])
    changes = {
        "unprompted": pa.concat_arrays([within(others, unprompted), without(unprompted, in_base)]),
        "outside": within(without(others, unprompted), ids_of(known)),
        "withheld": within(hidden, ids_of(known)),
        "gone": without(in_base, ids_of(known)),
    }
    tables = [_changes(kind, ids, pa.repeat(change, len(ids))) for change, ids in changes.items()]
    return [_changes(kind, planned, _changes_of_prompts(prompts, usable, fingerprint)), *tables]


def _changes_of_prompts(prompts: pa.Table, usable: pa.Table, fingerprint: str) -> pa.Array:
    """new, changed or carried for each of `prompts`."""
    positions = pc.index_in(ids_of(prompts), value_set=ids_of(usable))
    hashes = usable["prompt_hash"].cast(TEXT).combine_chunks().take(positions)
    is_of_tonight = pc.equal(usable["fingerprint"], fingerprint).combine_chunks().take(positions)
    is_same = pc.and_(pc.equal(prompts["prompt_hash"].cast(TEXT).combine_chunks(), hashes), is_of_tonight)
    return pc.if_else(pc.is_null(positions), "new", pc.if_else(is_same, "carried", "changed"))


def _allowed(base: pa.Table, cutoff: datetime | None) -> pa.Array:
    """Whether a row was made with no later events than `cutoff` allows."""
    if cutoff is None:
        return pa.array(np.ones(base.num_rows, dtype=bool))
    earlier = pc.less_equal(base["history_cutoff"], pa.scalar(cutoff, TIMESTAMP))
    return pc.fill_null(earlier, True).combine_chunks()


def counts_by_kind(changes: pa.Table) -> dict[Kind, dict[str, int]]:
    """For each kind the number of entities of each change, and those `planned`."""
    counts: dict[Kind, dict[str, int]] = {kind: dict.fromkeys(ALL_CHANGES, 0) for kind in KINDS}
    sums = changes.group_by(["kind", "change"]).aggregate([([], "count_all")])
    for row in sums.to_pylist():
        counts[row["kind"]][row["change"]] = row["count_all"]
    for of_kind in counts.values():
        of_kind["planned"] = sum(of_kind[change] for change in PLANNED)
    return counts


def ids_with(changes: pa.Table, kind: Kind, which: tuple[str, ...]) -> pa.Array:
    """Ids of the entities of `kind` whose change is one of `which`."""
    wanted = pc.and_(pc.equal(changes["kind"], kind), pc.is_in(changes["change"], pa.array(which)))
    return ids_of(changes.filter(wanted))


def is_planned(prompts: pa.Table, changes: pa.Table) -> np.ndarray:
    """For each row of `prompts` (columns kind, entity_id) whether it is new or changed."""
    planned = np.zeros(prompts.num_rows, dtype=bool)
    for kind in KINDS:
        named = pc.is_in(prompts["entity_id"], value_set=ids_with(changes, kind, PLANNED))
        planned |= pc.and_(pc.equal(prompts["kind"], kind), named).to_numpy()
    return planned


def is_unchanged(changes: pa.Table) -> bool:
    """Whether the snapshot in force is what tonight would publish."""
    moving = pc.is_in(changes["change"], pa.array([*PLANNED, "gone", "withheld"]))
    return not pc.any(moving, min_count=0).as_py()


def groups_of(base: pa.Table) -> pa.Table:
    """The groups (schema GROUPS) of the rows in force."""
    return base.select(GROUPS.names)


def _changes(kind: Kind, ids: pa.Array, changes: pa.Array) -> pa.Table:
    return pa.table([pa.repeat(kind, len(ids)), ids, changes], schema=CHANGES)


def _of_kind(table: pa.Table, kind: Kind) -> pa.Table:
    return table.filter(pc.equal(table["kind"], kind))
