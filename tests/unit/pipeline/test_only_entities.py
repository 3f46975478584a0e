"""A run may be given the entities it writes about."""

import pyarrow as pa

from pipeline.plan import only_entities
from pipeline.schemas import GROUPS

ROWS = [
    {"entity_id": entity_id, "kind": kind, "group": f"{kind}s"}
    for kind in ("user", "item")
    for entity_id in "321"
]


def test_kind_and_id_decide_and_unknown_ones_are_left_out():
    groups = pa.Table.from_pylist(ROWS, schema=GROUPS)
    only = pa.table({"kind": ["user", "item", "user", "item"], "entity_id": ["2", "3", "1", "9"]})
    chosen = only_entities(groups, only).to_pylist()
    assert [(row["kind"], row["entity_id"]) for row in chosen] == [
        ("item", "3"),
        ("user", "1"),
        ("user", "2"),
    ]
    assert chosen[0]["group"] == "items"


def test_a_kind_that_is_not_named_is_empty():
    groups = pa.Table.from_pylist(ROWS, schema=GROUPS)
    only = pa.table({"kind": pa.array(["user"]), "entity_id": pa.array(["1"])})
    assert only_entities(groups, only).num_rows == 1
