"""The comparison for people: tables and a plot."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.benchmark.methods import BASELINE
from pipeline.benchmark.rows import BenchRow


def speed_table(rows: Sequence[BenchRow]) -> str:
    """Ratio to `none`, lowest and highest of the rounds, by kind, concurrency and method."""
    return _markdown_table(rows, list(dict.fromkeys(row.method for row in rows)), _speed)


def prefill_table(rows: Sequence[BenchRow]) -> str:
    """Ratio to `none` if every prompt is read too: what a night gains, whose prompts are all new."""
    methods = list(dict.fromkeys(row.method for row in rows if row.method != BASELINE))
    return _markdown_table(rows, methods, lambda row: f"{row.ratio_with_prefill:.2f}")


def bound_table(rows: Sequence[BenchRow]) -> str:
    """What bounds the speed: tokens a step writes, and what such a step costs, in steps of `none`.

    The ratio to `none` is about the one divided by the other. In brackets the share of looping 8-grams:
    loops are easy to draft and flatter every drafter.
    """
    cost = {(row.kind, row.concurrency): row.ms_per_step for row in rows if row.method == BASELINE}

    def bound(row: BenchRow) -> str:
        steps = row.ms_per_step / cost[(row.kind, row.concurrency)]
        return f"{row.tokens_per_step:.2f} / {steps:.2f} ({row.looping_share:.0%})"

    methods = list(dict.fromkeys(row.method for row in rows if row.method != BASELINE))
    return _markdown_table(rows, methods, bound)


def plain_table(rows: Sequence[BenchRow]) -> str:
    """Tokens per step and estimated ratio to `none` of texts that loop by neither method, and their number.

    The time of a step cannot be divided among the texts of its batch: the ratio is that of all texts, scaled
    by the tokens per step.
    """

    def plain(row: BenchRow) -> str:
        share = f"{row.num_texts_without_loops} of {row.num_texts}"
        if not row.num_texts_without_loops:
            return f"- ({share})"
        return f"{row.tokens_per_step_without_loops:.2f}, about {row.ratio_without_loops:.2f} ({share})"

    methods = list(dict.fromkeys(row.method for row in rows if row.method != BASELINE))
    return _markdown_table(rows, methods, plain)


def _markdown_table(rows: Sequence[BenchRow], methods: Sequence[str], show: Callable[[BenchRow], str]) -> str:
    """One line for each kind and concurrency, one column for each method."""
    lines = ["| kind | concurrency | " + " | ".join(methods) + " |", "|---|---:|" + "---:|" * len(methods)]
    cells = {(row.kind, row.concurrency, row.method): row for row in rows}
    for kind, concurrency in dict.fromkeys((row.kind, row.concurrency) for row in rows):
        values = [show(cells[(kind, concurrency, method)]) for method in methods]
        lines.append(f"| {kind} | {concurrency} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _speed(row: BenchRow) -> str:
    if row.method == BASELINE:
        return f"{row.tokens_per_sec:.0f} tok/s"
    return f"{row.ratio_to_none:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"


def plot(rows: Sequence[BenchRow], path: Path, title: str) -> None:
    """Speed-up over `none` by concurrency, one panel for each kind, bars from lowest to highest round."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row.kind for row in rows))
    methods = [name for name in dict.fromkeys(row.method for row in rows) if name != BASELINE]
    concurrencies = sorted({row.concurrency for row in rows})
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(6 * len(kinds), 4.2), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for method in methods:
            found = {row.concurrency: row for row in rows if (row.kind, row.method) == (kind, method)}
            middle = [found[c].ratio_to_none for c in concurrencies]
            low = [found[c].ratio_to_none - found[c].ratio_low for c in concurrencies]
            high = [found[c].ratio_high - found[c].ratio_to_none for c in concurrencies]
            places = range(len(concurrencies))
            axis.errorbar(places, middle, yerr=[low, high], marker="o", capsize=3, label=method)
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(concurrencies)), [str(c) for c in concurrencies])
        axis.set_xlabel("requests in flight")
        axis.set_title(f"{kind}s")
    axes[0][0].set_ylabel("speed-up over decoding without drafts")
    axes[0][0].legend()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
