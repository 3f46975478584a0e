"""Sections on how the texts were decoded: kinds, sources, groups, curves, shards."""

import numpy as np

from pipeline.generate.summary import FAULTS
from pipeline.output_bounds import OutputCounts
from pipeline.printable import plural
from pipeline.report.blocks import Block, Chart, ChartName, Charts, Section, Text, table
from pipeline.report.figures import Decoding, Moment, RunFigures, ShardFigures, ratio
from pipeline.report.formats import UNKNOWN, count, decimal, duration, percent
from pipeline.report.rows import median_length

MAX_GROUPS = 20
MAX_CURVE_ROWS = 8
CURVES: list[tuple[ChartName, str, str, int]] = [
    ("tokens_per_sec", "Tokens per second", "of all workers together", 0),
    ("num_running", "Sequences in the batch", "of all workers together", 0),
    ("price", "Price of a draft token", "chance of acceptance from which one is verified", 2),
    ("drafter_ms", "Drafter, milliseconds per step", "of one worker", 2),
]


def decoding(figures: RunFigures) -> Section | None:
    """Texts by kind, draft source and group."""
    if not figures.rows.groups:
        return None
    charts = [chart for chart in (_lengths(figures), _sources(figures)) if chart is not None]
    blocks = [_kinds(figures), _aboutness(figures), Charts(charts), _groups(figures)]
    return Section("Texts and drafts", [block for block in blocks if block is not None])


def _kinds(figures: RunFigures) -> Block:
    rows = figures.rows
    reasons = sorted({reason for counts in rows.finish_reasons.values() for reason in counts})
    lines = [_kind_row(figures, kind, reasons) for kind in rows.kinds]
    malformed = ["no JSON"] if figures.facts.num_malformed else []
    shared = ["shared"] if any(rows.num_shared.values()) else []
    columns = ["kind", "texts", *shared, *reasons, *_faults(figures).values(), *malformed]
    columns += ["looping", "tokens", "median", "per step", "accepted", "relaxed"]
    remarks = "".join(f" {remark[0].upper()}{remark[1:]}." for remark in figures.facts.remarks)
    if shared:
        remarks = f" Shared: texts that were generated for another entity with the same prompt.{remarks}"
    note = f"Columns {', '.join(reasons)}: why texts ended. Median: tokens of a text.{remarks}"
    return table("Texts by kind", columns, lines, note=note)


def _aboutness(figures: RunFigures) -> Block | None:
    """What the texts say of their entities; None where the run measured it of none."""
    lines = [
        [
            kind,
            count(about.num_texts),
            percent(about.named),
            percent(about.named_other),
            percent(about.shared_openings),
            percent(about.distinct),
        ]
        for kind, about in figures.facts.aboutness.items()
    ]
    columns = ["kind", "texts measured", "name their own", "name another's", "shared openings", "distinct"]
    note = (
        "Own: the text's item, or one of the user's history; another's is what chance alone would give. "
        "Shared openings: texts whose first five words begin other texts too."
    )
    return table("What the texts say", columns, lines, note=note) if lines else None


def _faults(figures: RunFigures) -> dict[str, str]:
    """The faults that some text has: field of `OutputCounts` -> title of its column."""
    counts = figures.facts.outputs.values()
    return {name: title for name, title in FAULTS.items() if any(getattr(c, name) for c in counts)}


def _kind_row(figures: RunFigures, kind: str, reasons: list[str]) -> list[str]:
    rows, part = figures.rows, figures.rows.of_kind(kind)
    looping = ratio(rows.num_looping.get(kind, 0), rows.num_measured.get(kind, 0))
    return [
        kind,
        count(part.num_rows),
        *([count(rows.num_shared.get(kind, 0))] if any(rows.num_shared.values()) else []),
        *(count(rows.finish_reasons[kind].get(reason, 0)) for reason in reasons),
        *(count(getattr(figures.facts.outputs.get(kind, OutputCounts()), n)) for n in _faults(figures)),
        *([count(figures.facts.num_malformed.get(kind))] if figures.facts.num_malformed else []),
        percent(looping),
        count(part.num_output_tokens),
        count(median_length([rows.lengths[kind]])),
        decimal(part.tokens_per_step),
        percent(part.acceptance),
        percent(part.relaxed_share),
    ]


def _groups(figures: RunFigures) -> Block:
    """The largest groups; the others in one line."""
    parts = sorted(figures.rows.groups.items(), key=lambda item: -item[1].num_output_tokens)
    rules = figures.rows.rules
    has_rules = len({rule for of_group in rules.values() for rule in of_group}) > 1
    lines = [
        [*key, *([", ".join(rules[key])] if has_rules else []), *_decoding_cells(part)]
        for key, part in parts[:MAX_GROUPS]
    ]
    rest = parts[MAX_GROUPS:]
    if rest:
        others = Decoding.total(part for _, part in rest)
        name = plural(len(rest), "other group")
        lines.append(["", name, *([""] if has_rules else []), *_decoding_cells(others)])
    words = ["kind", "group", *(["rule"] if has_rules else [])]
    columns = [*words, "texts", "tokens", "per step", "drafted", "accepted", "relaxed"]
    return table("Drafting by group, largest first", columns, lines, num_words=len(words))


def _decoding_cells(part: Decoding) -> list[str]:
    return [
        count(part.num_rows),
        count(part.num_output_tokens),
        decimal(part.tokens_per_step),
        count(part.num_draft_tokens),
        percent(part.acceptance),
        percent(part.relaxed_share),
    ]


def _sources(figures: RunFigures) -> Chart | None:
    sources = figures.speed.sources
    if not sources:
        return None
    rows = [
        [
            name,
            count(counts.num_draft_tokens),
            count(counts.num_accepted_tokens),
            percent(ratio(counts.num_accepted_tokens, counts.num_draft_tokens)),
        ]
        for name, counts in sources.items()
    ]
    data = table("Drafts by source", ["source", "drafted", "accepted", "share"], rows)
    text = "Draft tokens of each source; the full part was accepted."
    return Chart("sources", "Drafts by source", text, data)


def _lengths(figures: RunFigures) -> Chart | None:
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    rows = [
        [kind, *(count(_quantile(lengths, q)) for q in quantiles)]
        for kind, lengths in figures.rows.lengths.items()
    ]
    columns = ["kind", "5 %", "25 %", "median", "75 %", "95 %", "longest"]
    data = table("Tokens of a text", columns, rows)
    return Chart("lengths", "Lengths of the texts", "Share of the texts by their tokens.", data)


def _quantile(lengths: np.ndarray, q: float) -> int:
    """The smallest length that a share `q` of the texts does not exceed; `lengths` as in `RowFigures`."""
    return int(np.searchsorted(np.cumsum(lengths), q * lengths.sum()))


def over_time(figures: RunFigures) -> Section | None:
    """The curves of the generation."""
    moments = figures.speed.moments
    charts = [chart for curve in CURVES if (chart := _curve(curve, moments)) is not None]
    if not charts:
        return None
    return Section("Over time", [Text(_sessions(figures)), Charts(charts)])


def _sessions(figures: RunFigures) -> str:
    speed = figures.speed
    share = ratio(speed.drafter_sec, speed.decode_sec)
    drafting = f" Drafting took {duration(speed.drafter_sec)}, {percent(share)} of it." if share else ""
    price = "" if speed.price is None else f" The mean price was {decimal(speed.price)}."
    starts = "one go" if speed.num_sessions == 1 else f"{speed.num_sessions} sessions, resumed in between"
    return f"Decoded for {duration(speed.decode_sec)}, in {starts}.{drafting}{price}"


def _curve(curve: tuple[ChartName, str, str, int], moments: list[Moment]) -> Chart | None:
    name, title, unit, digits = curve
    known = [(moment, getattr(moment, name)) for moment in moments if getattr(moment, name) is not None]
    if len(known) < 2:
        return None
    stride = -(-len(known) // MAX_CURVE_ROWS)
    rows = [[decimal(moment.minutes, 1), decimal(value, digits)] for moment, value in known[::stride]]
    values = [value for _, value in known]
    text = f"{unit}; between {decimal(min(values), digits)} and {decimal(max(values), digits)}."
    return Chart(name, title, text[0].upper() + text[1:], table(title, ["minute", title.lower()], rows, 0))


def shards(figures: RunFigures) -> Section | None:
    """The slowest shards, and machines if there are several."""
    found = figures.shards
    if not found.slowest:
        return None
    columns = ["shard", "machine", "time", "of the median", "texts", "failed", "tokens"]
    note = "From its start in a worker to its last text; shards share a worker's batch with their neighbours."
    slowest = table(
        f"The slowest of {plural(found.num_finished, 'shard')}",
        columns,
        _slowest(found),
        num_words=2,
        note=note,
    )
    blocks: list[Block] = [Text(f"A shard took {duration(found.median_sec)} in the median."), slowest]
    if len(found.nodes) > 1:
        rows = [
            [node.node, count(node.num_shards), count(node.num_rows), duration(node.median_sec)]
            for node in found.nodes
        ]
        blocks.append(
            table("Machines, the slowest first", ["machine", "shards", "texts", "median shard"], rows)
        )
    return Section("Shards", blocks)


def _slowest(found: ShardFigures) -> list[list[str]]:
    median = found.median_sec or 0.0
    return [
        [
            time.shard,
            time.node or UNKNOWN,
            duration(time.seconds),
            f"{decimal(ratio(time.seconds or 0.0, median), 1)} x",
            count(time.num_rows),
            count(time.num_failed),
            count(time.num_output_tokens),
        ]
        for time in found.slowest
    ]
