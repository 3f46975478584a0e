"""Sections on the night as a whole: steps, changes, comparison, failures, quality, samples."""

from pipeline.report.blocks import Block, Chart, ChartName, Charts, SampleText, Section, Text, table
from pipeline.report.figures import MIN_NIGHTS, TOLERANCE, Compared, Decoding, RunFigures, ratio
from pipeline.report.formats import count, decimal, duration, moment, percent, signed_percent
from pipeline.report.history import METRICS, Form, change
from pipeline.report.quality import COMPARED

FORMS = {metric.name: metric.form for metric in METRICS}
HISTORY_CHARTS: list[tuple[ChartName, str, str, int]] = [
    ("nights", "tokens_per_step", "Tokens per decoding step", 2),
    ("nights_speed", "tokens_per_sec", "Tokens per second", 0),
]
HISTORY = "Oldest to newest; a star marks one that did not go well."
CHANGE_WORDS = {
    "new": "new entities",
    "changed": "changed entities",
    "carried": "carried over, when they were written",
}


def steps(figures: RunFigures) -> Section | None:
    """What each step took and how it ended."""
    if figures.night is None or not figures.night.steps:
        return None
    rows = [
        [step.name, duration(step.seconds), step.status, step.error or ""] for step in figures.night.steps
    ]
    has_errors = any(row[3] for row in rows)
    columns = ["step", "time", "state", *(["reason"] if has_errors else [])]
    return Section(
        "Steps",
        [
            table(
                "Steps of the night",
                columns,
                [row[: len(columns)] for row in rows],
                num_last_words=len(columns) - 2,
            )
        ],
    )


def changes(figures: RunFigures) -> Section | None:
    """Entities by what became of them, and how the texts of new and changed ones were drafted."""
    night = figures.night
    if night is None or not night.counts:
        return None
    names = night.count_names
    rows = [[kind, *(count(counts.get(name, 0)) for name in names)] for kind, counts in night.counts.items()]
    if len(rows) > 1:
        rows.append(["all", *(count(night.total(name)) for name in names)])
    note = (
        "Kept old: failed tonight, so that the text of the night before stays."
        if night.total("kept_old")
        else ""
    )
    columns = ["kind", *(name.replace("_", " ") for name in names)]
    blocks: list[Block] = [table("Entities by what became of them", columns, rows, note=note)]
    blocks += _by_change(figures)
    if night.saved_decode_sec is not None:
        blocks.append(Text(_saved(night.decode_sec, night.saved_decode_sec)))
    return Section("What changed", blocks)


def _by_change(figures: RunFigures) -> list[Block]:
    night = figures.night
    if night is None or not night.by_change:
        return []
    rows = []
    for name, sums in night.by_change.items():
        part = Decoding(
            sums.num_rows,
            sums.num_output_tokens,
            sums.num_decode_steps,
            sums.num_draft_tokens,
            sums.num_accepted_tokens,
        )
        rows.append([CHANGE_WORDS.get(name, name), *_decoding_cells(part)])
    note = (
        "A changed entity drafts from its own text of the night before. "
        "Carried over: of the kinds that were written."
    )
    columns = ["texts of", "texts", "tokens", "tokens per step", "drafted", "accepted"]
    return [table("Drafting for new and changed entities, beside the others", columns, rows, note=note)]


def _decoding_cells(part: Decoding) -> list[str]:
    return [
        count(part.num_rows),
        count(part.num_output_tokens),
        decimal(part.tokens_per_step),
        count(part.num_draft_tokens),
        percent(part.acceptance),
    ]


def _saved(decode_sec: float | None, saved_sec: float) -> str:
    if not saved_sec:
        return "No decoding was saved: nothing could be carried over."
    text = f"Carrying texts over saved {duration(saved_sec)} of decoding"
    if decode_sec is None:
        return text + "."
    share = percent(decode_sec / (decode_sec + saved_sec))
    return (
        f"{text}; {duration(decode_sec)} was spent, {share} of what writing everything anew would have taken."
    )


def comparison(figures: RunFigures) -> Section | None:
    """Tonight beside the last nights; what is clearly worse than usual is named in words."""
    what = "nights" if figures.night else "runs"
    if not figures.history:
        return Section("The nights before" if figures.night else "The runs before", [Text(_alone(figures))])
    shown = [c for c in figures.compared if c.value is not None or c.median is not None]
    rows = [_compared_row(compared) for compared in shown]
    number = len(figures.history)
    title = f"The last {number} {what}" if number > 1 else f"The {what[:-1]} before"
    this = "tonight" if figures.night else "this run"
    columns = ["figure", this, "median before", "change", "lowest", "highest", "worse?"]
    num_good = sum(record["state"] == "done" for record in figures.history)
    note = (
        f"Median and range of the {num_good} of them that went well; worse is what needs a look and lies "
        f"more than {percent(TOLERANCE)} beyond the median of at least {MIN_NIGHTS}."
    )
    return Section(
        title,
        [
            Text(_worse(shown) + _not_compared(figures)),
            Charts(_history_charts(figures)),
            table(
                f"{this.capitalize()} beside the {what} before", columns, rows, num_last_words=1, note=note
            ),
        ],
    )


def _alone(figures: RunFigures) -> str:
    what = "night" if figures.night else "run"
    return f"There is no earlier {what} with this model and prompt set to compare with."


def _not_compared(figures: RunFigures) -> str:
    """Which runs the figures of drafting leave out, because their drafts were earlier answers."""
    number = sum(not record.get("is_new", True) for record in figures.history)
    parts = []
    if not figures.facts.is_new:
        parts.append(f"{repeated_prompts(figures)}, so its speed and drafts are compared with none.")
    elif number:
        parts.append(
            f"Speed and drafts leave out {number} of them, most of whose drafts were earlier answers to the "
            "same prompts."
        )
    return "".join(f" {part}" for part in parts)


def repeated_prompts(figures: RunFigures) -> str:
    """How many prompts of this run were answered before."""
    number, planned = count(figures.facts.num_repeated_prompts), count(figures.facts.num_planned)
    return (
        f"{number} of {planned} prompts of this run were answered before, and drafts came from these answers"
    )


def _worse(compared: list[Compared]) -> str:
    flagged = [f"{item.label} ({item.flag})" for item in compared if item.flag]
    if not flagged:
        return "No figure is clearly worse than usual, as far as there are nights to compare with."
    return f"Clearly worse than usual: {', '.join(flagged)}."


def _compared_row(compared: Compared) -> list[str]:
    form = FORMS[compared.name]
    values = [shown(value, form) for value in (compared.value, compared.median, compared.low, compared.high)]
    value, median, low, high = values
    return [compared.label, value, median, signed_percent(change(compared)), low, high, compared.flag or "no"]


def shown(value: float | None, form: Form) -> str:
    """A figure in its form."""
    return {"count": count, "decimal": decimal, "percent": percent, "duration": duration}[form](value)


def _history_charts(figures: RunFigures) -> list[Chart]:
    charts = []
    records = [*figures.history, figures.record]
    for name, metric, title, digits in HISTORY_CHARTS:
        if sum(record["metrics"].get(metric) is not None for record in records) < 2:
            continue
        rows = [
            [record["run_id"], record["state"], decimal(record["metrics"].get(metric), digits)]
            for record in records
        ]
        data = table(title, ["run", "state", title.lower()], rows, num_words=2)
        charts.append(Chart(name, title, HISTORY, data))
    return charts


def failures(figures: RunFigures) -> Section | None:
    """Failed rows by reason."""
    blocks: list[Block] = []
    if figures.facts.unfinished_reasons:
        rows = [[reason, count(number)] for reason, number in figures.facts.unfinished_reasons.items()]
        blocks.append(table("Shards that were given up", ["reason", "shards"], rows))
    if figures.shards.broken:
        parts = figures.shards.broken
        more = [f"and {len(parts) - 5} more"] if len(parts) > 5 else []
        blocks.append(table("Broken parts", ["part"], [[line] for line in parts[:5] + more]))
    if figures.failures:
        rows = [[item.stage, item.reason, item.example, count(item.num_rows)] for item in figures.failures]
        columns = ["stage", "reason", "for example", "rows"]
        note = "Digits are shown as #; failed.parquet holds every row."
        blocks.append(table("Failed rows by reason", columns, rows, num_words=3, note=note))
    return Section("Failures", blocks) if blocks else None


def quality(figures: RunFigures) -> Section | None:
    """What validation and the quality gate found."""
    blocks = [*_validation(figures), *_quality(figures)]
    return Section("Quality", blocks) if blocks else None


def _validation(figures: RunFigures) -> list[Block]:
    rows = [
        [
            part.name,
            count(part.num_rows),
            *_with_share(part.num_empty, part.num_rows),
            *_with_share(part.num_looping, part.num_rows),
            *_with_share(part.num_with_control_tokens, part.num_rows),
        ]
        for part in figures.validation
    ]
    columns = ["validated", "texts", "empty", "%", "looping", "%", "control tokens", "%"]
    return [table("What validation found", columns, rows)] if rows else []


def _with_share(number: int, whole: int) -> list[str]:
    share = ratio(number, whole)
    return [count(number), decimal(None if share is None else 100 * share)]


def _quality(figures: RunFigures) -> list[Block]:
    if not figures.quality:
        return []
    words = {True: "yes", False: "NO", None: "-"}
    rows = [[check.name, check.value, check.budget, words[check.is_ok]] for check in figures.quality]
    text = " ".join([*_compared(figures), *_budgets(figures)])
    return [Text(text), table("Quality gate", ["measure", "value", "budget", "ok"], rows, num_last_words=1)]


def _compared(figures: RunFigures) -> list[str]:
    """On how many texts the measures rest."""
    for check in figures.quality:
        if check.name == COMPARED:
            few = ": too few to judge by, so the gate failed" if check.is_ok is False else ""
            return [f"{check.value} relaxed texts were compared with strict ones{few}."]
    return []


def _budgets(figures: RunFigures) -> list[str]:
    checks = {check.name: check for check in figures.quality}
    compared = checks.pop(COMPARED, None)
    bad = [name for name, check in checks.items() if check.is_ok is False]
    if bad:
        return [f"Outside the budget: {', '.join(bad)}."]
    is_judged = checks and (compared is None or compared.is_ok)
    return ["Every measure is within its budget."] if is_judged else []


def samples(figures: RunFigures) -> Section | None:
    """A few texts to look at."""
    texts: list[Block] = [SampleText(sample) for sample in figures.rows.samples]
    if not texts:
        return None
    return Section("Texts to look at", [Text("Chosen by length and repetition, not at random."), *texts])


def about(figures: RunFigures) -> Section:
    """What the run was, and what the words mean."""
    facts, night = figures.facts, figures.night
    rows: list[tuple[str, str | None]] = [
        ("run", facts.run_id),
        ("dataset", facts.dataset),
        ("model", facts.model),
        ("prompt set", facts.knowledge),
        ("drafter", facts.drafter),
        ("acceptance", facts.acceptance),
        ("pools drafted from", facts.datastore_version or "none: the pools were empty"),
        ("snapshot before", night.previous_version if night else None),
        ("snapshot in force", night.version if night else None),
        ("began", moment(figures.started_at) if figures.started_at else None),
        ("ended", moment(figures.ended_at) if figures.ended_at else None),
    ]
    known = [[name, value] for name, value in rows if name and value]
    return Section(
        "This run", [table("Settings of the run", ["what", "value"], known, num_words=2), Text(WORDS)]
    )


WORDS = (
    "Tokens per step: tokens that one forward pass adds to a text; 1.00 without drafts. Accepted: share of "
    "the draft tokens that the model's verification took. Relaxed: tokens taken that were not the model's "
    "first choice. Price: the chance of acceptance from which a draft token is worth verifying; it nears 1 "
    "in a full batch. Looping: ended for repetition, or half of a text's 8-grams stood in it before."
)
