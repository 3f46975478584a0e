"""Numbers as people read them. Unknown values are a dash."""

from datetime import UTC, datetime

UNKNOWN = "-"


def count(value: float | None) -> str:
    """`1,234`."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """`3.14`."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """`12 %`, with as many digits as it takes below ten."""
    if value is None:
        return UNKNOWN
    hundred = 100 * value
    digits = 0 if hundred == 0 or abs(hundred) >= 99.95 else 1 if abs(hundred) >= 1 else 2
    return f"{hundred:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """`3.2 s`, `5 min 12 s`, `42 min`, `2 h 5 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, sec = divmod(round(seconds), 60)
    if seconds < 3570:
        return f"{minutes} min {sec} s" if sec and minutes < 10 else f"{minutes + (sec >= 30)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def moment(time: datetime | None) -> str:
    """`2026-11-22 03:00 UTC`."""
    return UNKNOWN if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def signed_percent(value: float | None) -> str:
    """`+12 %`."""
    if value is None:
        return UNKNOWN
    return "0 %" if abs(value) < 0.0005 else f"{100 * value:+.1f} %"
