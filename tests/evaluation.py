"""A small domain in time, for tests of the evaluation."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipeline.domains import DomainTables
from pipeline.schemas import FAILED, INTERACTIONS, ITEMS, USERS

START = datetime(1998, 1, 1, tzinfo=UTC)


def interactions(rows):
    """Rows of (user, item, rating, day)."""
    columns = [
        {"user_id": user, "item_id": item, "rating": rating, "timestamp": START + timedelta(days=day)}
        for user, item, rating, day in rows
    ]
    return pa.Table.from_pylist(columns, schema=INTERACTIONS)


def tables_of(interacted):
    users = sorted(set(interacted["user_id"].to_pylist()))
    items = sorted(set(interacted["item_id"].to_pylist()))
    return DomainTables(
        pa.Table.from_pylist([{"user_id": u, "attributes": [("age", f"{u}0")]} for u in users], USERS),
        pa.Table.from_pylist(
            [{"item_id": i, "title": i, "categories": ["Drama"], "attributes": []} for i in items], ITEMS
        ),
        interacted,
        FAILED.empty_table(),
    )


DAILY = interactions([(f"u{day % 3}", f"i{day % 4}", 1 + day % 5, day) for day in range(40)])
IDS = {"user": pa.array(["u0", "u1", "u2"]), "item": pa.array(["i0", "i1", "i2", "i3"])}
