"""The pictures of the report as SVG that follows the page: its font, its colours, light or dark.

Matplotlib draws in stand-in colours; they are replaced by CSS variables of the page. No picture needs
colour to be read: lines differ in dashes, bars carry their numbers.
"""

import io
import math
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.blocks import ChartName
from pipeline.report.figures import Moment, RunFigures, ratio
from pipeline.report.formats import count, decimal, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (5.2, 2.5)
INK, GRID, FIRST, SECOND, PALE = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {
    INK: "var(--ink)",
    GRID: "var(--line)",
    FIRST: "var(--c1)",
    SECOND: "var(--c2)",
    PALE: "var(--pale)",
}
DASHES = ("-", "--", ":", "-.")
MAX_BINS = 32
STYLE: Any = {
    "svg.fonttype": "none",  # texts stay texts, in the font of the page
    "svg.hashsalt": "report",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def draw(name: ChartName, figures: RunFigures) -> str:
    """The picture `name` as an `<svg>` element."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        DRAWERS[name](figure.add_subplot(), figures)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Only the element, with the page's colours and font, ids that are unique in the page, no fixed size."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1).strip()


def _curve(name: ChartName) -> Callable[["Axes", RunFigures], None]:
    def draw_curve(axes: "Axes", figures: RunFigures) -> None:
        highest = 0.0
        for minutes, values in _stretches(figures.speed.moments, name):
            highest = max(highest, *values)
            axes.plot(minutes, values, color=FIRST, linewidth=1.6, marker="." if len(values) < 3 else "")
        axes.set_ylim(0, 1.1 * highest or 1.0)
        axes.set_xlabel("minutes since the beginning")

    return draw_curve


def _stretches(moments: list[Moment], name: str) -> Iterator[tuple[list[float], list[float]]]:
    """The curve, apart for each session: nothing is drawn over a pause."""
    for _, session in groupby(moments, lambda moment: moment.session):
        points = [(m.minutes, getattr(m, name)) for m in session if getattr(m, name) is not None]
        if points:
            yield [x for x, _ in points], [y for _, y in points]


def _sources(axes: "Axes", figures: RunFigures) -> None:
    sources = figures.speed.sources
    names = list(sources)[::-1]
    drafted = [sources[name].num_draft_tokens for name in names]
    accepted = [sources[name].num_accepted_tokens for name in names]
    axes.barh(names, drafted, color=PALE, edgecolor=FIRST, linewidth=0.8)
    axes.barh(names, accepted, color=FIRST)
    for row, (a, d) in enumerate(zip(accepted, drafted, strict=True)):
        label = f"{percent(ratio(a, d))} of {count(d)}"
        axes.annotate(label, (d, row), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(*drafted, 1) * 1.45)
    axes.set_xlabel("draft tokens")
    axes.grid(False)
    _thousands(axes)


def _lengths(axes: "Axes", figures: RunFigures) -> None:
    lengths = figures.rows.lengths
    longest = max(len(counts) for counts in lengths.values())
    width = max(1, math.ceil(longest / MAX_BINS))
    edges = np.arange(0, longest + width, width)
    for number, (kind, counts) in enumerate(sorted(lengths.items())):
        sums = np.add.reduceat(np.pad(counts, (0, edges[-1] - len(counts))), edges[:-1])
        colour = FIRST if number % 2 == 0 else SECOND
        style = DASHES[number % len(DASHES)]
        axes.stairs(100 * sums / sums.sum(), edges, color=colour, linestyle=style, linewidth=1.6, label=kind)
    axes.set_xlabel("tokens of a text")
    axes.set_ylabel("% of texts")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(lengths), handlelength=2.5
    )  # above the bars


def _nights(metric: str, digits: int) -> Callable[["Axes", RunFigures], None]:
    def draw_nights(axes: "Axes", figures: RunFigures) -> None:
        records = [*figures.history, figures.record]
        values = [record["metrics"].get(metric) for record in records]
        known = [(n, value) for n, value in enumerate(values) if value is not None]
        axes.plot(*zip(*known, strict=True), color=FIRST, linewidth=1.6, marker="o", markersize=4)
        number, last = known[-1]
        axes.plot([number], [last], marker="o", markersize=8, color=SECOND)
        axes.annotate(
            decimal(last, digits),
            (number, last),
            (0, 8),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
        axes.set_xticks(range(len(records)), [_day(record) for record in records])
        axes.set_xlim(-0.4, len(records) - 0.6)
        axes.set_ylim(0, 1.2 * max(value for _, value in known))

    return draw_nights


def _day(record: dict[str, Any]) -> str:
    """Month and day of a night, a star if it did not go well."""
    day = str(record.get("started_at") or "")[5:10]
    return day + ("" if record["state"] == "done" else "*")


def _thousands(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))


DRAWERS: dict[ChartName, Callable[["Axes", RunFigures], None]] = {
    "tokens_per_sec": _curve("tokens_per_sec"),
    "num_running": _curve("num_running"),
    "price": _curve("price"),
    "drafter_ms": _curve("drafter_ms"),
    "sources": _sources,
    "lengths": _lengths,
    "nights": _nights("tokens_per_step", 2),
    "nights_speed": _nights("tokens_per_sec", 0),
}
