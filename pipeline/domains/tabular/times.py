"""The moments of interactions, however a tabular domain spells them, as TIMESTAMP."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.failures import FailureLog, reject
from pipeline.domains.raw.records import MICROS_PER_UNIT
from pipeline.domains.tables import with_column
from pipeline.domains.validation import with_timestamps, within_range
from pipeline.schemas import TIMESTAMP

# ISO 8601's spellings, rewritten one after the other as Arrow reads them: `YYYY-MM-DDThh:mm:ss.ffffffZ`.
_REWRITINGS = (
    (r"^([0-9]{4})([0-9]{2})([0-9]{2})(T|$)", r"\1-\2-\3\4"),
    (r"^(.{10})[t ]", r"\1T"),
    (r"^(.{10}T[0-9]{2})([0-9]{2})([0-9]{2})", r"\1:\2:\3"),
    (r"^(.{10}T[0-9]{2})([0-9]{2})", r"\1:\2"),
    (r"[.,]([0-9]{6})[0-9]+", r".\1"),
    (r",", r"."),
    (r" ([+-])", r"\1"),
    (r"^(.{10})$", r"\1T00Z"),
    (r"^(.{10}T[0-9:.]+)(?: ?[Zz])?$", r"\1Z"),
)
_LEAP_YEAR = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_TIME = rf"{_HOUR}(?::{_MINUTE}(?::{_MINUTE}(?:\.[0-9]{{1,6}})?)?)?"
_LOCAL = rf"^{_DATE}(?:[T ]{_TIME})?$"
_MOMENT = rf"^{_DATE}[T ]{_TIME}(?:Z|[+-]{_HOUR}(?::?{_MINUTE})?)$"


def with_times(rows: pa.Table, unit: str, log: FailureLog) -> pa.Table:
    """The rows whose `timestamp` is a moment in `unit` since 1970, now as TIMESTAMP.

    A typed column holds moments whatever the unit.
    """
    column = rows["timestamp"]
    if pa.types.is_timestamp(column.type):
        kept = reject(rows, pc.is_null(column), "no timestamp", log)
        return within_range(kept, kept["timestamp"], "the timestamp", log)
    rows = with_column(rows, "timestamp", pc.fill_null(column, ""))
    if unit != "iso":
        return with_timestamps(rows, log, micros_per_unit=MICROS_PER_UNIT[unit])
    times = iso_times(rows["timestamp"])
    kept = reject(rows, pc.is_null(times), "timestamp '{timestamp}' is not an ISO date or time", log)
    return within_range(kept, times.drop_null(), "timestamp '{timestamp}'", log)


def iso_times(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO dates and times as TIMESTAMP, UTC where they name no offset; what is none becomes null.

    Digits beyond the microsecond are dropped. Weeks (`2020-W01`) and ordinal days are not read.
    """
    return pa.chunked_array([_iso_times(chunk) for chunk in texts.chunks], TIMESTAMP)


def _iso_times(texts: pa.Array) -> pa.Array:
    texts = pc.fill_null(pc.utf8_trim_whitespace(texts), "")
    odd = pc.invert(pc.match_substring_regex(texts, _MOMENT))
    if not pc.any(odd).as_py():
        return texts.cast(TIMESTAMP)
    if pc.all(pc.match_substring_regex(texts, _LOCAL)).as_py():
        return texts.cast(pa.timestamp("us")).cast(TIMESTAMP)
    rewritten = texts.filter(odd)
    for pattern, replacement in _REWRITINGS:
        rewritten = pc.replace_substring_regex(rewritten, pattern, replacement)
    rewritten = pc.if_else(pc.match_substring_regex(rewritten, _MOMENT), rewritten, None)
    return pc.replace_with_mask(texts, odd, rewritten).cast(TIMESTAMP)
