"""The evaluation for people: tables, a plot, and what they say in plain words."""

from pathlib import Path

from pipeline.evaluate.evaluation import Evaluation, Findings
from pipeline.evaluate.results import GREEDY, KNOWLEDGE, NONE, RELAXED, SHUFFLED, STRICT
from pipeline.evaluate.statistics import ALL, Comparison, Interval

WARM = "warm users: "  # begins a verdict that is about these alone


def markdown(found: Evaluation) -> str:
    """What was compared, the tables and the verdicts."""
    parts = [_what_was_compared(found), _sets_table(found), *_tables("All test events", found.everyone)]
    if found.warm is not None:
        parts += _tables("Warm users only (trained; their texts show what they rated)", found.warm)
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in verdicts(found))])


def _tables(title: str, findings: Findings) -> list[str]:
    counts = f"{findings.num_events:,} events of {findings.num_users:,} users"
    return [f"**{title}: {counts}**", _auc_table(findings), _differences_table(findings)]


def _what_was_compared(found: Evaluation) -> str:
    meta, counts = found.meta, found.meta["num_evaluated"]
    num_seeds = meta["evaluation"]["num_seeds"]
    covered = sum(counts.values()) / meta["num_interactions"]
    return (
        f"{meta['dataset']}: {meta['num_users']} users and {meta['num_items']} items, which hold "
        f"{covered:.0%} of all {meta['num_interactions']:,} interactions. Before {meta['history_cutoff']}, "
        f"where prompts end, {counts['train']:,} to train; from there {counts['validation']:,} to stop by; "
        f"from {meta['test_from']} {counts['test']:,} to test ({meta['num_test_warm']:,} of trained users), "
        f"{meta['positive_share_of_test']:.0%} of them positive. Knowledge: {meta['model']}, prompts "
        f"{meta['prompt_set']}, at most {meta['max_tokens']['user']} tokens for a user and "
        f"{meta['max_tokens']['item']} for an item; vectors: {meta['encoder']}, PCA to {meta['dimension']}. "
        f"{num_seeds} seeds. Intervals of 95 %: over the seeds (Student's t, the noise of training), and "
        "with test users and seeds drawn anew (bootstrap)."
    )


def _sets_table(found: Evaluation) -> str:
    lines = [
        "| knowledge | pools at the start | texts | tokens | tokens per step | relaxed tokens | looping "
        "| same text as greedy |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one['knowledge']} ({', '.join(one['acceptance'])}) | {one['pools']} | {one['num_texts']} | "
        f"{one['num_tokens']:,} | {one['tokens_per_step']:.2f} | {one['relaxed_share']:.1%} | "
        f"{one['looping_share']:.1%} | {one['same_as_greedy']:.1%} |"
        for one in found.meta["sets"]
    ]
    return "\n".join(lines)


def _auc_table(found: Findings) -> str:
    models = list(dict.fromkeys(summary.model for summary in found.summaries))
    cells = {(summary.model, summary.knowledge): summary for summary in found.summaries}
    lines = ["| AUC; logloss | " + " | ".join(KNOWLEDGE) + " |", "|---|" + "---:|" * len(KNOWLEDGE)]
    for model in models:
        row = [cells[(model, name)] for name in KNOWLEDGE]
        shown = [f"{_spread(cell.auc)}; {_spread(cell.logloss)}" for cell in row]
        lines.append(f"| {model} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _spread(interval: Interval) -> str:
    return f"{interval.mean:.4f} ±{interval.half_width:.4f}"


def _differences_table(found: Findings) -> str:
    lines = [
        "| paired by seed | model | AUC | 95 % (seeds) | 95 % (users, seeds) | logloss | 95 % (seeds) "
        "| 95 % (users, seeds) |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.knowledge} - {one.baseline} | {one.model} | {one.auc.mean:+.4f} | {_range(one.auc)} | "
        f"{_range(one.auc_resampled or one.auc)} | {one.logloss.mean:+.4f} | {_range(one.logloss)} | "
        f"{_range(one.logloss_resampled or one.logloss)} |"
        for one in found.comparisons
    ]
    return "\n".join(lines)


def _range(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def verdicts(found: Evaluation) -> list[str]:
    """What the intervals allow to say: the goal for each model, whether knowledge helps, and the control."""
    same = next(one["same_as_greedy"] for one in found.meta["sets"] if one["knowledge"] == STRICT)
    lines = [
        *_verdicts(found.everyone, found),
        f"LASER strict wrote the text of greedy decoding for {same:.1%} of the entities.",
    ]
    if found.warm is None:
        return [*lines, f"{WARM}their test events hold labels of one kind, so nothing can be said of them."]
    return [*lines, *(WARM + line for line in _verdicts(found.warm, found))]


def _verdicts(findings: Findings, found: Evaluation) -> list[str]:
    pairs = {(one.knowledge, one.baseline, one.model): one for one in findings.comparisons}
    models = list(dict.fromkeys(one.model for one in findings.comparisons))
    sizes = (found.meta["evaluation"]["num_seeds"], findings.num_users)
    return [
        *(
            _goal_line(pairs[(RELAXED, GREEDY, model)], found.goal, *sizes)
            for model in models
            if model != ALL
        ),
        *(_gain_line(pairs[(name, NONE, ALL)]) for name in (GREEDY, RELAXED)),
        _control_line(pairs[(SHUFFLED, GREEDY, ALL)]),
    ]


def _goal_line(one: Comparison, goal: float, num_seeds: int, num_users: int) -> str:
    within = one.auc_range.is_within(goal)
    shown = f"{one.model}: AUC(relaxed) - AUC(greedy) = {one.auc.mean:+.4f} ({_range(one.auc_range)})"
    if within is None:
        return f"{shown}: {_undecided(one.auc_range, goal, num_seeds, num_users)}"
    if within:
        return f"{shown}: the goal of ±{goal:g} is met."
    return (
        f"{shown}: the goal of ±{goal:g} is MISSED: relaxed is {'better' if one.auc.mean > 0 else 'worse'}."
    )


def _undecided(interval: Interval, goal: float, num_seeds: int, num_users: int) -> str:
    """Why the goal is not decided, and how large a test would decide it if there were no difference."""
    factor = interval.times_as_many(goal)
    if factor <= 1.0:
        return f"the interval lies across the edge of the goal of ±{goal:g}: it cannot be told."
    return (
        f"the interval is wider than the goal of ±{goal:g} allows to tell. Were there no difference, it "
        f"would take about {factor:,.0f} times as many seeds and test users ({factor * num_seeds:,.0f} and "
        f"{factor * num_users:,.0f}) to narrow ±{interval.half_width:.4f} to it (by 1/sqrt(n))."
    )


def _gain_line(one: Comparison) -> str:
    found = one.auc_range
    shown = f"{one.auc.mean:+.4f} AUC ({_range(found)}), mean of all models"
    if found.low > 0:
        return f"{one.knowledge} knowledge helps over no knowledge: {shown}."
    if found.high < 0:
        return f"{one.knowledge} knowledge HURTS compared with no knowledge: {shown}."
    return f"{one.knowledge} knowledge brings NO gain over no knowledge that its interval shows: {shown}."


def _control_line(one: Comparison) -> str:
    shown = f"{one.auc.mean:+.4f} AUC ({_range(one.auc_range)}) against greedy, mean of all models"
    if one.auc_range.high < 0:
        return f"The control loses, as it must: knowledge of the wrong entities has {shown}."
    return (
        f"The control does NOT lose for certain: knowledge of the wrong entities has {shown}. That these "
        "texts say anything of their entities that the models use is not shown, so a difference between "
        "greedy and relaxed texts is not shown to mean anything either."
    )


def plot(found: Evaluation, path: Path) -> None:
    """AUC of every model and knowledge, and the differences to greedy beside the goal, as a PNG at `path`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    models = list(dict.fromkeys(summary.model for summary in found.everyone.summaries))
    for place, name in enumerate(KNOWLEDGE):
        intervals = [
            s.auc
            for model in models
            for s in found.everyone.summaries
            if (s.model, s.knowledge) == (model, name)
        ]
        _points(left, intervals, place, name)
        differences = [
            one.auc_range
            for model in models
            for one in found.everyone.comparisons
            if (one.model, one.knowledge, one.baseline) == (model, name, GREEDY)
        ]
        if differences:
            _points(right, differences, place, name)
    for axis in (left, right):
        axis.set_xticks(range(len(models)), models)
    right.axhspan(-found.goal, found.goal, color="grey", alpha=0.3, label=f"goal ±{found.goal:g}")
    left.set_ylabel("test AUC, mean and 95 % interval")
    right.set_ylabel("AUC minus that of greedy knowledge, paired by seed")
    for axis in (left, right):
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(f"{found.meta['dataset']}, knowledge by {found.meta['model']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _points(axis: object, intervals: list[Interval], place: int, label: str) -> None:
    """The intervals side by side, shifted a little for each `place`."""
    places = [number + 0.12 * (place - 2) for number in range(len(intervals))]
    means = [interval.mean for interval in intervals]
    reach = [
        [interval.mean - interval.low for interval in intervals],
        [interval.high - interval.mean for interval in intervals],
    ]
    axis.errorbar(places, means, yerr=reach, fmt="o", capsize=3, label=label, color=f"C{place}")  # type: ignore[attr-defined]
