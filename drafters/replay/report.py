"""What the replay prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drafters.replay.frontier import Duel
from drafters.replay.simulator import ReplayResult
from drafters.replay.traces import Split, looping_share

HEADINGS = ("method", "setting", "tokens/step", "drafted/step", "us/request", "us/call")
WIDTHS = (8, 26, 12, 13, 11, 10)


@dataclass(frozen=True)
class Row:
    """One method at one setting."""

    method: str
    setting: str
    result: ReplayResult

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        result = self.result
        return {
            "method": self.method,
            "setting": self.setting,
            "tokens_per_step": result.tokens_per_step,
            "drafted_per_step": result.drafted_per_step,
            "us_per_request": result.us_per_request,
            "us_per_call": result.us_per_call,
            "num_tokens": result.num_tokens,
            "num_steps": result.num_steps,
        }


def describe_split(name: str, split: Split) -> str:
    """Three lines on what is replayed, and from what."""
    num_tokens = sum(len(r.output) for r in split.known)
    return (
        f"{name}: {len(split.measured)} texts measured; every method drafts from the same "
        f"{len(split.known)} others ({num_tokens:,} tokens)\n"
        f"  {len(split.warm)} of these were replayed first, against the other {len(split.pool)}, to warm "
        f"LASER's calibration\n"
        f"  {looping_share(split.measured):.1%} of the measured 8-grams repeat within their text"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned."""
    lines = ["".join(h.rjust(w) for h, w in zip(HEADINGS, WIDTHS, strict=True))]
    for row in rows:
        r = row.result
        numbers = (r.tokens_per_step, r.drafted_per_step, r.us_per_request, r.us_per_call)
        cells = [row.method, row.setting, *(f"{n:.{d}f}" for n, d in zip(numbers, (3, 3, 1, 1), strict=True))]
        lines.append("".join(c.rjust(w) for c, w in zip(cells, WIDTHS, strict=True)))
    return "\n".join(lines)


def verdict(name: str, duels: Sequence[Duel]) -> str:
    """LASER against Arctic, at each drafted number and in one closing line."""
    if not duels:
        return f"{name}: the frontiers do not overlap; give other --price values"
    lines = [
        f"  {duel.drafted_per_step:6.2f} drafted: {duel.ours:.3f} / {duel.theirs:.3f} = {duel.ratio:.3f}"
        f"  {duel.verdict}"
        for duel in duels
    ]
    ratios = [duel.ratio for duel in duels]
    num_losses = sum(duel.verdict == "loss" for duel in duels)
    outcome = "no loss" if not num_losses else f"LOSS at {num_losses} of {len(duels)} points"
    mean = sum(ratios) / len(ratios)
    return "\n".join(
        [
            f"{name}: LASER / Arctic, tokens per step at equal drafted tokens per step",
            *lines,
            f"{name}: ratio {min(ratios):.3f} to {max(ratios):.3f}, mean {mean:.3f}: {outcome}",
        ]
    )


def duel_dict(duel: Duel) -> dict[str, Any]:
    """For JSON."""
    return {
        "drafted_per_step": duel.drafted_per_step,
        "laser": duel.ours,
        "arctic": duel.theirs,
        "ratio": duel.ratio,
        "verdict": duel.verdict,
    }
