"""Raw interactions of any domain, read in bounded blocks, checked, and freed of repetitions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import LINE, FailureLog
from pipeline.domains.raw.files import RawFile, read_rows
from pipeline.domains.raw.lines import lines_at
from pipeline.domains.validation import (
    repeated_interactions,
    require_unit,
    with_known,
    with_ratings,
    with_timestamps,
    with_values,
)
from pipeline.schemas import INTERACTIONS, conform


@dataclass(frozen=True)
class InteractionRules:
    """What an interaction must satisfy.

    `items`: the known item ids. `users`: the known user ids; null: any user is welcome.
    """

    items: pa.Array
    users: pa.Array | None
    min_rating: float
    max_rating: float


def read_interactions(raw: RawFile, rules: InteractionRules, log: FailureLog) -> pa.Table:
    """The valid interactions of `raw` in the order of the file, as an INTERACTIONS table.

    `raw` has the columns user_id, item_id, rating and timestamp (seconds since 1970).
    """
    lines: list[np.ndarray] = []
    parts = [INTERACTIONS.empty_table()]
    for rows in _valid_rows(raw, rules, log):
        lines.append(rows[LINE].to_numpy())
        parts.append(rows.select(INTERACTIONS.names).cast(INTERACTIONS))
    table = pa.concat_tables(parts)
    return conform(_without_repetitions(table, raw, lines, rules, log), INTERACTIONS, str(raw.path))


def _valid_rows(raw: RawFile, rules: InteractionRules, log: FailureLog) -> Iterator[pa.Table]:
    is_first = True
    for rows in read_rows(raw, log):
        if is_first:
            require_unit(rows["timestamp"], "s", f"{raw.path}: the timestamp")
        is_first = False
        rows = with_values(rows, "user_id", "user id", log)
        rows = with_known(rows, "item_id", rules.items, "item", log)
        if rules.users is not None:
            rows = with_known(rows, "user_id", rules.users, "user", log)
        rows = with_ratings(rows, rules.min_rating, rules.max_rating, log)
        yield with_timestamps(rows, log)


def _without_repetitions(
    table: pa.Table, raw: RawFile, lines: list[np.ndarray], rules: InteractionRules, log: FailureLog
) -> pa.Table:
    users = rules.users if rules.users is not None else pc.unique(table["user_id"])
    repeated = repeated_interactions(table, users, rules.items)
    if not repeated.size:
        return table
    numbers = pa.array(np.concatenate(lines)[repeated])
    reasons = pa.repeat("the same user, item and timestamp stand on an earlier line", len(numbers))
    log.add(numbers, reasons, lines_at(raw.path, raw.format.fallback_encoding, numbers))
    kept = np.ones(table.num_rows, dtype=bool)
    kept[repeated] = False
    return table.filter(pa.array(kept))
