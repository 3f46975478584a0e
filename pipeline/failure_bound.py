"""How many entities of a run may fail: one rule for the job's exit code, publishing, and the report.

The bound is a share of the entities of each kind. Those that got no prompt count as failed, and among those
that there are. Users of whom nothing is known before the cutoff are no failures: there is nothing to write.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import Kind

NUM_ALWAYS_ALLOWED = 1  # of a handful of rows one is more than any small fraction
NO_INTERACTIONS = "no interactions before the cutoff"  # why a user of whom nothing is known has no prompt


@dataclass(frozen=True)
class KindCounts:
    """The entities of one kind that a run or a night is about, and what became of them."""

    kind: Kind
    num_prompts: int = 0  # entities that have a prompt; a night carries most of them over
    num_rejected: int = 0  # those that should have one
    num_unknown: int = 0  # those of whom nothing is known before the cutoff
    num_planned: int = 0  # texts to be written now
    num_failed: int = 0  # of the planned
    num_kept: int = 0  # texts of earlier runs that stay

    @property
    def num_entities(self) -> int:
        """The entities that should have a text."""
        return self.num_prompts + self.num_rejected

    def objection(self, max_failed_fraction: float) -> str | None:
        """Why a run over this kind failed, in words; None: it did not.

        That is: no text at all, too many of the planned failed, or too many of all have no new text.
        A fraction of 1 allows everything.
        """
        if max_failed_fraction >= 1:
            return None
        allowed = f"more than max_failed_fraction={max_failed_fraction:g} allows"
        num_asked_for = self.num_entities + self.num_unknown
        if num_asked_for and not self.num_kept and self.num_prompts <= self.num_failed:
            reasons = [
                f"{number} {what}"
                for number, what in (
                    (self.num_rejected, "got no prompt"),
                    (self.num_unknown, "have no interactions before the cutoff"),
                    (self.num_failed, "failed"),
                )
                if number
            ]
            return f"none of {num_asked_for} {self.kind}s has a text: {', '.join(reasons)}"
        if too_many_failed(self.num_failed, self.num_planned, max_failed_fraction, self.num_kept):
            return f"{self.num_failed} of {self.num_planned} planned {self.kind}s failed, {allowed}"
        num_failed = self.num_failed + self.num_rejected
        if self.num_rejected and _is_over(num_failed, self.num_entities, max_failed_fraction):
            return (
                f"{num_failed} of {self.num_entities} {self.kind}s have no new text "
                f"({self.num_rejected} got no prompt), {allowed}"
            )
        return None


def first_objection(kinds: Iterable[KindCounts], max_failed_fraction: float) -> str | None:
    """The `KindCounts.objection` of the first kind that has one."""
    return next(filter(None, (kind.objection(max_failed_fraction) for kind in kinds)), None)


def objection_to_prompts(
    kinds: Iterable[KindCounts], failed: pa.Table, max_failed_fraction: float
) -> str | None:
    """Why a run over `kinds` fails whatever is generated, with an example out of `failed` (schema FAILED)."""
    kinds = list(kinds)
    for counts in kinds:
        objection = counts.objection(max_failed_fraction)
        if objection is None:
            continue
        is_rejected = pc.and_(
            pc.equal(failed["kind"], counts.kind), pc.not_equal(failed["reason"], NO_INTERACTIONS)
        )
        for row in failed.filter(is_rejected).slice(0, 1).to_pylist():
            objection += f"; for example {counts.kind} {row['entity_id']!r}: {row['reason']}"
        return objection
    has_texts = any(counts.num_prompts + counts.num_kept for counts in kinds)
    return None if has_texts else "no prompt could be written"


def count_kinds(prompts: pa.Table, planned: pa.Table, failed: pa.Table) -> list[KindCounts]:
    """The counts of each kind before anything is generated.

    `prompts` and `planned` have a column `kind`; `failed` (schema FAILED) are rows of earlier stages.
    """
    unprompted = failed.filter(pc.equal(failed["stage"], "prompt"))
    is_unknown = pc.equal(unprompted["reason"], NO_INTERACTIONS)
    tables = {
        "num_prompts": prompts,
        "num_planned": planned,
        "num_rejected": unprompted.filter(pc.invert(is_unknown)),
        "num_unknown": unprompted.filter(is_unknown),
    }
    counts: dict[Kind, dict[str, int]] = {}
    for name, table in tables.items():
        for row in pc.value_counts(table["kind"]).to_pylist():
            counts.setdefault(row["values"], {})[name] = row["counts"]
    return [KindCounts(kind, **of_kind) for kind, of_kind in sorted(counts.items())]


def too_many_failed(
    num_failed: int, num_planned: int, max_failed_fraction: float, num_carried: int = 0
) -> bool:
    """Whether so many of the planned rows of a kind failed that the run failed.

    The bound is a share of the planned rows, and never below one row unless the share is 0. A run that
    wrote none of its rows failed, unless that is a single one beside `num_carried` texts that stay.
    """
    if _is_over(num_failed, num_planned, max_failed_fraction):
        return True
    wrote_nothing = 0 < num_planned <= num_failed
    return wrote_nothing and max_failed_fraction < 1 and (num_planned > 1 or not num_carried)


def _is_over(number: int, whole: int, max_fraction: float) -> bool:
    return number > max(max_fraction * whole, NUM_ALWAYS_ALLOWED if max_fraction > 0 else 0)
