"""What the comparison says in plain words: who is behind, how sure that is, which goals are met."""

from collections.abc import Iterator, Sequence

from pipeline.benchmark.methods import BASELINE
from pipeline.benchmark.rows import BenchRow

PEERS = ("ngram", "suffix")
STRICT_LASER = "laser-strict"
GOALS_ALONE = (2.5, 3.0)  # ratio to `none` of one request at a time: strict, relaxed
GOALS = {4: 1.6, 16: 1.25, 64: 1.1}  # by requests in flight, whatever the rule
FULL_SHARE = 0.95  # of the wanted requests in flight, below which a batch is said to have drained

Cells = dict[tuple[str, int, str], BenchRow]


def verdicts(rows: Sequence[BenchRow]) -> list[str]:
    """A line for each thing that a reader of the medians would miss, and what the medians say themselves."""
    cells = {(row.kind, row.concurrency, row.method): row for row in rows}
    lasers = [row for row in rows if row.method.startswith("laser")]
    measured = {row.method for row in rows}
    absent = [f"{peer} was not measured." for peer in PEERS if peer not in measured]
    behind = [line for row in lasers for line in _behind(row, cells)]
    if lasers and not behind:
        strict = ", and no relaxed rule is behind strict" if STRICT_LASER in measured else ""
        behind = [f"By the medians LASER is ahead of every method measured in every cell{strict}."]
    unsure = [line for row in lasers for line in [*_slower_rounds(row), *_overlaps(row, cells)]]
    drained = [line for row in rows for line in _drained(row)]
    return [_texts(rows), *absent, *behind, *unsure, *_goals(lasers), *drained]


def _texts(rows: Sequence[BenchRow]) -> str:
    """How many texts a cell rests on."""
    counts = {row.concurrency: (row.num_texts, row.num_rounds) for row in rows}
    cells = ", ".join(f"{texts} at concurrency {concurrency}" for concurrency, (texts, _) in counts.items())
    num_rounds = max(rounds for _, rounds in counts.values())
    rounds = "one round, which shows no spread" if num_rounds == 1 else f"{num_rounds} rounds"
    return f"Texts behind each figure: {cells}; {rounds}."


def _others(row: BenchRow, cells: Cells, names: Sequence[str]) -> Iterator[BenchRow]:
    for name in names:
        other = cells.get((row.kind, row.concurrency, name))
        if other is not None and name != row.method:
            yield other


def _behind(row: BenchRow, cells: Cells) -> Iterator[str]:
    """Methods with a higher median."""
    for other in _others(row, cells, (BASELINE, *PEERS, STRICT_LASER)):
        if other.ratio_to_none > row.ratio_to_none:
            yield f"{_name(row)} {row.ratio_to_none:.2f} is behind {other.method} {other.ratio_to_none:.2f}"


def _slower_rounds(row: BenchRow) -> Iterator[str]:
    if row.ratio_low < 1.0 <= row.ratio_to_none:
        yield f"{_name(row)}: its lowest round, {row.ratio_low:.2f}, was slower than decoding without drafts"


def _overlaps(row: BenchRow, cells: Cells) -> Iterator[str]:
    """Methods that the median is ahead of, and not every round."""
    for other in _others(row, cells, (*PEERS, STRICT_LASER)):
        if other.ratio_to_none <= row.ratio_to_none and row.ratio_low <= other.ratio_high:
            yield (
                f"{_name(row)} {_spread(row)} is ahead of {other.method} {_spread(other)} by its median, "
                "but their rounds overlap"
            )


def _goals(lasers: Sequence[BenchRow]) -> list[str]:
    """Up to three lines: goals that every round meets, that the median meets, that are missed."""
    sure: list[str] = []
    median_only: list[str] = []
    missed: list[str] = []
    for row in lasers:
        goal = goal_of(row)
        if goal is None:
            continue
        is_met, is_sure = row.ratio_to_none >= goal, row.ratio_low >= goal
        found = sure if is_sure else median_only if is_met else missed
        found.append(f"{_name(row)} {row.ratio_to_none:.2f} (goal {goal:g})")
    lines = (
        ("Goals met in every round", sure),
        ("Goals met by the median, not in every round", median_only),
        ("Goals missed", missed),
    )
    return [f"{title}: {'; '.join(found)}." for title, found in lines if found]


def goal_of(row: BenchRow) -> float | None:
    """The ratio to `none` that is aimed at in the cell of `row`, a row of LASER; None where none is set."""
    if row.concurrency == 1:
        strict, relaxed = GOALS_ALONE
        return strict if row.method == STRICT_LASER else relaxed
    return GOALS.get(row.concurrency)


def _drained(row: BenchRow) -> Iterator[str]:
    if row.mean_concurrency < FULL_SHARE * row.concurrency:
        yield f"{_name(row)}: its batch drained, {row.mean_concurrency:.1f} requests in flight in the mean"


def _name(row: BenchRow) -> str:
    return f"{row.kind}, concurrency {row.concurrency}: {row.method}"


def _spread(row: BenchRow) -> str:
    return f"{row.ratio_to_none:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
