"""What a run would do: what was understood of the data, sample prompts, and how long it would take.

Nothing is generated and nothing below `paths.data` is written.
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.domains import DomainTables
from pipeline.domains.raw.failures import UNLISTED
from pipeline.errors import DataError
from pipeline.estimate import TimeEstimate, estimate_time
from pipeline.failure_bound import count_kinds, objection_to_prompts
from pipeline.generate.optional_packages import require_drafter_package
from pipeline.generate.ray_cluster import reject_what_does_not_fit
from pipeline.models import ModelSource, resolve_model
from pipeline.models.resolve import PACKAGE_PREFIX
from pipeline.outline import taken
from pipeline.pools import version_in_force
from pipeline.printable import plural, printable
from pipeline.prompts import RenderedPrompts
from pipeline.prompts.histories import MAX_ATTRIBUTES
from pipeline.road import choose_entities, group_tables, read_tables, render_chosen
from pipeline.settings import KINDS, Kind, PathsSettings, RunSettings
from pipeline.sharing import COMPARED, origins, scope_of
from pipeline.stages import duration
from pipeline.storage.layout import DatasetLayout, models_folder

logger = logging.getLogger(__name__)

NUM_SHOWN_PROMPTS = 3
MAX_SHOWN_GROUPS = 25
MAX_SHOWN_REASONS = 5


@dataclass(frozen=True)
class TokenLengths:
    """Prompts of one kind, and their lengths in tokens."""

    num_prompts: int
    num_distinct: int
    num_texts: int  # to generate: an equal prompt may share the text of another one
    median: int
    p95: int
    longest: int


@dataclass(frozen=True)
class DryRun:
    """What was understood. `groups` are of the whole domain, prompts of the entities that are asked for."""

    num_rows: dict[str, int]  # table -> good rows
    times: tuple[str, str] | None  # of the first and the last interaction; None: the data has none
    overfull: dict[str, int]  # what prompts show in part only -> of how many users or items
    general_factors: str | None  # what texts are asked to go into where the prompt set names no item_word
    bad_rows: list[tuple[str, int, str]]  # (file, number of rows, an example of the reason), most first
    groups: dict[Kind, list[tuple[str, int]]]  # largest first
    prompts: dict[Kind, list[str]]
    lengths: dict[Kind, TokenLengths]
    num_failed_prompts: int
    estimate: TimeEstimate


@dataclass(frozen=True)
class Understood:
    """What reading and grouping made of the data."""

    tables: DomainTables
    groups: pa.Table  # GROUPS, of the whole domain
    chosen: pa.Table  # those of `groups` that are asked for


def understand(settings: RunSettings) -> Understood:
    """Check what a run needs, read and group. Raises `PipelineError` as a run would."""
    require_drafter_package(settings.drafter.name)
    reject_what_does_not_fit(settings)
    tables = read_tables(settings)
    groups = group_tables(settings, tables)
    return Understood(tables, groups, choose_entities(settings, groups))


def dry_run(settings: RunSettings) -> DryRun:
    """Read, group and render as a run would. Raises `PipelineError` as a run would."""
    understood = understand(settings)
    tables, groups = understood.tables, understood.groups
    rendered, _ = render_apart(settings, tables, understood.chosen)
    kinds = count_kinds(rendered.prompts, rendered.prompts, rendered.failed)
    objection = objection_to_prompts(kinds, rendered.failed, settings.max_failed_fraction)
    if objection is not None:
        raise DataError(f"{objection}; a run would generate nothing")
    lengths = _lengths(settings, rendered.prompts)
    return DryRun(
        num_rows={name: getattr(tables, name).num_rows for name in ("users", "items", "interactions")},
        times=_times(settings, tables.interactions),
        overfull=_overfull(tables),
        general_factors=_general_factors(settings),
        bad_rows=_bad_rows(tables.failed),
        groups={kind: _sizes(groups, kind) for kind in KINDS},
        prompts={kind: _first_prompts(rendered.prompts, kind) for kind in KINDS},
        lengths=lengths,
        num_failed_prompts=rendered.failed.num_rows,
        estimate=_estimate(settings, lengths, groups),
    )


def render_apart(
    settings: RunSettings, tables: DomainTables, chosen: pa.Table
) -> tuple[RenderedPrompts, ModelSource]:
    """The prompts of `chosen`, and the model that they are for; nothing is left below `paths.data`.

    The model has the identity that a run would find, but perhaps no weights, and its folder may be gone.
    """
    model, models = settings.model, models_folder(settings.paths.data)
    with tempfile.TemporaryDirectory() as scratch:
        is_prepared = (models / model.path.removeprefix(PACKAGE_PREFIX)).is_dir()
        place = models if is_prepared else Path(scratch) / "models"
        source = resolve_model(model, place, with_weights=False)
        elsewhere = settings.model_copy(update={"paths": PathsSettings(data=scratch)})
        return render_chosen(elsewhere, tables, chosen, source), source


def _first_prompts(prompts: pa.Table, kind: Kind) -> list[str]:
    shown: list[str] = _of_kind(prompts, kind)["prompt"][:NUM_SHOWN_PROMPTS].to_pylist()
    return shown


def _of_kind(rows: pa.Table, kind: Kind) -> pa.Table:
    return rows.filter(pc.equal(rows["kind"], kind))


def _times(settings: RunSettings, interactions: pa.Table) -> tuple[str, str] | None:
    """First and last time, to the second; Arrow writes years that Python's datetime cannot hold."""
    tabular = settings.dataset.tabular
    if tabular is not None and tabular.interactions.timestamp is None:
        return None
    ends = pc.min_max(interactions["timestamp"])
    seconds = pa.timestamp("s")
    first, last = (ends[end].cast(pa.timestamp("us")).cast(seconds, safe=False) for end in ("min", "max"))
    return first.cast(pa.string()).as_py(), last.cast(pa.string()).as_py()


def _overfull(tables: DomainTables) -> dict[str, int]:
    """Where more is known than prompts show, by name, and of how many."""
    columns = {
        "categories of items": tables.items["categories"],
        "attributes of items": tables.items["attributes"],
        "attributes of users": tables.users["attributes"],
    }
    counts = {name: _num_longer(column, MAX_ATTRIBUTES) for name, column in columns.items()}
    return {name: count for name, count in counts.items() if count}


def _general_factors(settings: RunSettings) -> str | None:
    factors, word = settings.knowledge.factors, settings.dataset.item_word
    is_named = word.lower() in map(str.lower, factors)
    is_shown = any("factors" in settings.knowledge.prompt(kind).template for kind in KINDS)
    return settings.knowledge.factors_of(word) if is_shown and not is_named else None


def _num_longer(column: pa.ChunkedArray, size: int) -> int:
    """How many lists or maps of `column` have more than `size` entries."""
    return sum(int((np.diff(chunk.offsets.to_numpy()) > size).sum()) for chunk in column.chunks)


def _bad_rows(failed: pa.Table) -> list[tuple[str, int, str]]:
    counted = failed.append_column("num", _num_rows_of(failed)).group_by("file", use_threads=False)
    totals = counted.aggregate([("num", "sum"), ("reason", "first")])
    rows = [(row["file"] or "", row["num_sum"], row["reason_first"]) for row in totals.to_pylist()]
    return sorted(rows, key=lambda row: -row[1])


def _num_rows_of(failed: pa.Table) -> pa.ChunkedArray:
    """For how many raw rows each row of `failed` stands: one, or those that were too many to be listed."""
    found = pc.extract_regex(failed["reason"], rf"^(?P<num>[0-9]+){UNLISTED}$")
    unlisted = pc.struct_field(found, "num").cast(pa.int64())
    return pc.if_else(pc.is_null(failed["line"]), pc.fill_null(unlisted, 1), 1)


def _sizes(groups: pa.Table, kind: Kind) -> list[tuple[str, int]]:
    counted = pc.value_counts(_of_kind(groups, kind)["group"]).to_pylist()
    return sorted(((row["values"], row["counts"]) for row in counted), key=lambda pair: (-pair[1], pair[0]))


def _lengths(settings: RunSettings, prompts: pa.Table) -> dict[Kind, TokenLengths]:
    keys = taken(prompts.select(COMPARED), np.arange(prompts.num_rows))
    is_first = origins(keys, lambda kind, group: "kind") == np.arange(prompts.num_rows)
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    # With pools there may be earlier texts of these entities; which ones is not looked up.
    is_first_text = np.ones(prompts.num_rows, dtype=bool) if version_in_force(layout) is None else None
    is_written = origins(keys, scope_of(settings), is_first_text) == np.arange(prompts.num_rows)
    lengths = {}
    for kind in KINDS:
        is_of_kind = pc.equal(keys["kind"], kind).to_numpy()
        tokens = pc.list_value_length(_of_kind(prompts, kind)["prompt_token_ids"]).to_numpy()
        if tokens.size:
            median, p95, longest = np.percentile(tokens, [50, 95, 100], method="higher").astype(int).tolist()
            num_distinct, num_texts = (int(np.sum(which & is_of_kind)) for which in (is_first, is_written))
            lengths[kind] = TokenLengths(int(tokens.size), num_distinct, num_texts, median, p95, longest)
    return lengths


def _estimate(settings: RunSettings, lengths: dict[Kind, TokenLengths], groups: pa.Table) -> TimeEstimate:
    """In the whole domain as many prompts are taken to share texts as among those that were rendered."""
    asked_for, of_all = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    for kind, found in lengths.items():
        asked_for[kind] = found.num_texts
        of_all[kind] = _of_kind(groups, kind).num_rows * found.num_texts / found.num_prompts
    return estimate_time(settings, asked_for, of_all)


def render_dry_run(result: DryRun, out: Console) -> None:
    """Show `result`."""
    counts = ", ".join(plural(count, name.removesuffix("s")) for name, count in result.num_rows.items())
    out.print(f"Understood: {counts}", highlight=False)
    if result.times is not None:
        out.print(f"Interactions from {result.times[0]} to {result.times[1]} (UTC)", highlight=False)
    for name, count in result.overfull.items():
        have = plural(count, "has", "have")
        out.print(f"Prompts show the first {MAX_ATTRIBUTES} {name}; {have} more", highlight=False)
    if result.general_factors is not None:
        out.print(
            "knowledge.factors does not name dataset.item_word, so texts are asked to go into "
            f"{result.general_factors} (docs/new-domain.md: factors of your own)",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    _print_bad_rows(result, out)
    for kind in KINDS:
        _print_groups(kind, result.groups[kind], out)
    for kind in KINDS:
        for prompt in result.prompts[kind]:
            out.rule(f"prompt of one {kind}", align="left")
            shown = printable(prompt, keep="\n\t")
            out.print(shown, markup=False, highlight=False, soft_wrap=True)
    out.rule()
    _print_lengths(result, out)
    _print_estimate(result, out)
    out.print("Nothing was generated or written.")


def _print_estimate(result: DryRun, out: Console) -> None:
    estimate = result.estimate
    asked_for = " and ".join(plural(found.num_prompts, kind) for kind, found in result.lengths.items())
    lines = [
        f"Generation for {asked_for} would write about {estimate.num_output_tokens:,} tokens and take "
        f"{duration(estimate.seconds)} at {estimate.tokens_per_sec:,.0f} tokens/s ({estimate.basis})."
    ]
    if estimate.num_output_tokens_of_all > estimate.num_output_tokens:
        lines.append(
            f"With limit=all it would be about {estimate.num_output_tokens_of_all:,} tokens and "
            f"{duration(estimate.seconds_of_all)}."
        )
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


def _print_bad_rows(result: DryRun, out: Console) -> None:
    total = sum(count for _, count, _ in result.bad_rows)
    unprompted = f"users or items without a prompt: {result.num_failed_prompts:,}"
    out.print(f"Bad rows: {total:,}; {unprompted}", highlight=False)
    for file, count, reason in result.bad_rows[:MAX_SHOWN_REASONS]:
        line = printable(f"  {file}: {count:,}, for example: {reason}")
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_groups(kind: Kind, sizes: list[tuple[str, int]], out: Console) -> None:
    shown = printable(", ".join(f"{name} {size:,}" for name, size in sizes[:MAX_SHOWN_GROUPS]))
    rest = f", and {len(sizes) - MAX_SHOWN_GROUPS} more" if len(sizes) > MAX_SHOWN_GROUPS else ""
    out.print(
        f"{plural(len(sizes), f'{kind} group')}: {shown}{rest}", markup=False, highlight=False, soft_wrap=True
    )


def _print_lengths(result: DryRun, out: Console) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("prompt tokens")
    for name in ("prompts", "distinct", "median", "95 %", "longest"):
        table.add_column(name, justify="right")
    for kind, lengths in result.lengths.items():
        cells = (lengths.num_prompts, lengths.num_distinct, lengths.median, lengths.p95, lengths.longest)
        table.add_row(kind, *(f"{cell:,}" for cell in cells))
    out.print(table)
    for kind, lengths in result.lengths.items():
        if lengths.num_distinct < lengths.num_prompts:
            out.print(_equal_prompts_line(kind, lengths), highlight=False, soft_wrap=True)


def _equal_prompts_line(kind: Kind, lengths: TokenLengths) -> str:
    """What equal prompts mean for the texts."""
    found = f"{lengths.num_prompts:,} {kind} prompts, {lengths.num_distinct:,} of them distinct"
    if lengths.num_texts == lengths.num_distinct:
        return f"{found}: each is generated once, and {kind}s with the same prompt share its text and vector."
    return (
        f"{found}, yet about {lengths.num_texts:,} texts are generated: sampled texts are not shared, and "
        "relaxed ones only within a group and among entities without an earlier text."
    )
