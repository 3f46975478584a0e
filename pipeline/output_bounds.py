"""What can be wrong with the texts of a model: counted and bounded here for every job.

`jobs.generate` judges the texts of its run, publishing those of the new snapshot; both go by
`PublishSettings`. The summary, the report and `validation.json` show the same counts.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.failure_bound import NUM_ALWAYS_ALLOWED
from pipeline.publish_settings import PublishSettings

LOOPING = "repetition"  # the finish reason of a text that repetition detection ended
CUT = "length"  # the finish reason of a text that max_tokens ended
COUNTED_COLUMNS = ("kind", "text", "finish_reason", "num_control_tokens", "num_reasoning_tokens")
# What has a bound: a field of `OutputCounts`, what such texts do, and the field of `PublishSettings`.
BOUNDED = (
    ("num_empty", "are empty", "max_empty_fraction"),
    ("num_looping", "are looping", "max_looping_fraction"),
    ("num_with_control_tokens", "hold control tokens", "max_control_token_fraction"),
)


@dataclass(frozen=True)
class OutputCounts:
    """How many texts there are, and how many of them have a fault. A text may have several."""

    num_rows: int = 0
    num_empty: int = 0
    num_looping: int = 0
    num_cut: int = 0
    num_with_control_tokens: int = 0
    num_with_reasoning: int = 0  # reasoning was cut off before the text; no fault, but it costs tokens

    def __add__(self, other: "OutputCounts") -> "OutputCounts":
        return OutputCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def are_all_cut(self) -> bool:
        """Whether `max_tokens` ended every one of several texts."""
        return self.num_cut == self.num_rows > 1

    def objection(self, bounds: PublishSettings, what: str) -> str | None:
        """Why these texts must not be used, None if they may. `what` they are is named in the reason."""
        for name, fault, bound in BOUNDED:
            number, fraction = getattr(self, name), getattr(bounds, bound)
            if _is_too_many(number, self.num_rows, fraction):
                return f"{number} of {self.num_rows} {what} {fault}, more than publish.{bound}={fraction:g}"
        return None


def count_outputs(rows: pa.Table | pa.RecordBatch) -> dict[str, OutputCounts]:
    """The counts of `rows` (at least `COUNTED_COLUMNS`) by kind."""
    flags = {
        "num_empty": pc.equal(pc.utf8_trim_whitespace(rows["text"]), ""),
        "num_looping": pc.equal(rows["finish_reason"], LOOPING),
        "num_cut": pc.equal(rows["finish_reason"], CUT),
        "num_with_control_tokens": pc.greater(pc.fill_null(rows["num_control_tokens"], 0), 0),
        "num_with_reasoning": pc.greater(pc.fill_null(rows["num_reasoning_tokens"], 0), 0),
    }
    columns = {name: flag.cast(pa.int64()) for name, flag in flags.items()}
    table = pa.table({"kind": rows["kind"], **columns})
    sums = table.group_by("kind").aggregate([([], "count_all"), *((name, "sum") for name in flags)])
    return {
        row["kind"]: OutputCounts(row["count_all"], **{name: row[f"{name}_sum"] for name in flags})
        for row in sums.to_pylist()
    }


def total_of(by_kind: Mapping[str, OutputCounts]) -> OutputCounts:
    """The counts of all kinds together."""
    return sum(by_kind.values(), OutputCounts())


def objection_to(
    by_kind: Mapping[str, OutputCounts], bounds: PublishSettings, what: str = "texts"
) -> str | None:
    """Why texts of these counts must not be used, None if they may.

    The bounds hold for all texts together, and for those of one kind alone if there are
    `bounds.min_judged_rows` of them: a million good texts of users must not hide that all items are empty.
    """
    objection = total_of(by_kind).objection(bounds, what)
    for kind, counts in by_kind.items():
        if objection is None and counts.num_rows >= bounds.min_judged_rows:
            objection = counts.objection(bounds, f"{what} of {kind}s")
    return objection


def _is_too_many(number: int, num_rows: int, fraction: float) -> bool:
    """Whether `number` exceeds its share; one of a handful does not, unless the share is 0 or it is all."""
    floor = NUM_ALWAYS_ALLOWED if fraction > 0 else 0
    are_all = 0 < num_rows <= number
    return number > max(fraction * num_rows, floor) or (are_all and fraction < 1)
