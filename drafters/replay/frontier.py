"""Comparing two drafters fairly: tokens per step at equal drafted tokens per step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EVEN_MARGIN = 0.005


@dataclass(frozen=True)
class Point:
    """One setting of a drafter."""

    drafted_per_step: float
    tokens_per_step: float


@dataclass(frozen=True)
class Duel:
    """Both drafters at the same number of drafted tokens."""

    drafted_per_step: float
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Our tokens per step over theirs."""
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """`win`, `loss`, or `even` within half a percent."""
        if abs(self.ratio - 1.0) <= EVEN_MARGIN:
            return "even"
        return "win" if self.ratio > 1.0 else "loss"


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats with as few drafted tokens, by drafted tokens."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.drafted_per_step, -p.tokens_per_step)):
        if not best or point.tokens_per_step > best[-1].tokens_per_step:
            best.append(point)
    return best


def interpolate(points: Sequence[Point], drafted_per_step: float) -> float | None:
    """Tokens per step of a frontier at `drafted_per_step`; None outside its range.

    A mixture of two neighbouring settings reaches what lies on the line between them. Without drafts
    there is one token a step, so every frontier begins at (0, 1).
    """
    known = [Point(0.0, 1.0), *points]
    if not 0.0 <= drafted_per_step <= known[-1].drafted_per_step:
        return None
    drafted = [point.drafted_per_step for point in known]
    return float(np.interp(drafted_per_step, drafted, [point.tokens_per_step for point in known]))


def compare(ours: Sequence[Point], theirs: Sequence[Point]) -> list[Duel]:
    """Both frontiers at each drafted number that one of them measured and both cover."""
    ours, theirs = frontier(ours), frontier(theirs)
    duels = []
    for drafted in sorted({p.drafted_per_step for p in [*ours, *theirs]}):
        left, right = interpolate(ours, drafted), interpolate(theirs, drafted)
        if left is not None and right is not None:
            duels.append(Duel(drafted, left, right))
    return duels
