"""The table, and whether the targets are met.

`B/tok` is what a pooled token takes, on disk where the pool lies there: the suffix tree lies in memory only.
`with domain` sets all files against the tokens of the groups' pools alone, since the domain pool repeats
documents of theirs, up to its budget. `start` and `teach` are what a request costs outside `propose`, `first`
its start in a store that was just opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MEBIBYTE = 2**20
COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    # heading, field, factor, decimals
    ("B/tok", "bytes_per_token", 1.0, 2),
    ("with domain", "store_bytes_per_token", 1.0, 2),
    ("memory B/tok", "resident_bytes_per_token", 1.0, 2),
    ("build Mtok/s", "build_tokens_per_sec", 1e-6, 2),
    ("build s", "build_sec", 1.0, 1),
    ("peak MiB", "build_peak_bytes", 1 / MEBIBYTE, 0),
    ("open ms", "open_ms", 1.0, 2),
    ("us/request", "propose_us_per_request", 1.0, 1),
    ("ms/64", "propose_ms_64_requests", 1.0, 2),
    ("p95", "propose_ms_64_requests_p95", 1.0, 2),
    ("first us/req", "start_first_us_per_request", 1.0, 1),
    ("start us/req", "start_us_per_request", 1.0, 1),
    ("teach us/tok", "teach_us_per_token", 1.0, 2),
    ("tok/step", "tokens_per_step", 1.0, 2),
    ("drafted", "drafted_per_step", 1.0, 2),
)


@dataclass(frozen=True)
class Target:
    """An upper bound on a field of LASER's rows; `pool_tokens` 0: of every row."""

    text: str
    field: str
    bound: float
    pool_tokens: int = 0


TARGETS = (
    Target("bytes per pooled token on disk", "bytes_per_token", 12.0),
    Target("bytes per pooled token resident", "resident_bytes_per_token", 12.0),
    Target("seconds to build 10 M tokens on one core", "build_sec", 30.0, 10_000_000),
    Target("ms to open", "open_ms", 50.0),
    Target(
        "ms for propose() of 64 requests, 10 M tokens, one core", "propose_ms_64_requests", 1.5, 10_000_000
    ),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each method and pool size."""
    lines = ["method   pool tokens   vocab" + "".join(heading.rjust(13) for heading, *_ in COLUMNS)]
    for row in rows:
        cells = [_cell(row.get(field), factor, decimals) for _, field, factor, decimals in COLUMNS]
        head = f"{row['method']:7}{row['pool_tokens']:13,}{row['vocab_size']:8}"
        lines.append(head + "".join(cell.rjust(13) for cell in cells))
    return "\n".join(lines)


def _cell(value: float | None, factor: float, decimals: int) -> str:
    return "-" if value is None else f"{value * factor:,.{decimals}f}"


def targets(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each target: the worst value of LASER's rows, and met or missed."""
    lines = []
    for target in TARGETS:
        values = [
            row[target.field]
            for row in rows
            if row["method"] == "laser"
            and target.pool_tokens in (0, row["pool_tokens"])
            and row.get(target.field) is not None
        ]
        if not values:
            lines.append(f"not measured  {target.text}: <= {target.bound:g}")
            continue
        verdict = "met" if max(values) <= target.bound else "MISSED"
        lines.append(f"{verdict:12}  {target.text}: {max(values):.3g}, target <= {target.bound:g}")
    return "\n".join(lines)
