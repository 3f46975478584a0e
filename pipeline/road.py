"""The whole road of a run: raw data to finished knowledge rows and extended pools."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains import DomainTables, raw_data_of, read_domain, write_domain
from pipeline.errors import ConfigError, DataError, GenerationError
from pipeline.failure_bound import KindCounts, count_kinds, objection_to_prompts
from pipeline.fingerprint import row_fingerprint, run_fingerprint
from pipeline.generate.aboutness import aboutness_of_run
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.dispatch import GenerationOutcome, run_shards
from pipeline.generate.optional_packages import require_drafter_package
from pipeline.generate.progress import ProgressView
from pipeline.generate.ray_cluster import reject_what_does_not_fit
from pipeline.generate.summary import ExampleText, RunSummary, example_texts, summarize
from pipeline.groups import group_entities, reject_unknown_groups
from pipeline.groups.alignment import align_user_groups
from pipeline.models import ModelSource, resolve_model
from pipeline.models.tokenizer import load_tokenizer, vocabulary_size
from pipeline.outline import outline_plan, shards_in_full
from pipeline.plan import is_plan_of, only_entities, reject_later_events, select_entities
from pipeline.plan_file import write_shards
from pipeline.pools import answered_prompts, extend_pools, usable_version
from pipeline.prompts import RenderedPrompts, render_prompts
from pipeline.prompts.outputs import structured_kinds
from pipeline.publish.snapshot import read_columns, snapshot_in_force
from pipeline.schemas import GROUPS, TIMESTAMP
from pipeline.settings import RunSettings
from pipeline.sharing import scope_of
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json, sha256_of_rows, write_json, write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout, local_folder, models_folder
from pipeline.storage.location import read_table
from pipeline.storage.lock import exclusive
from pipeline.storage.parts import committed_shards, knowledge_dataset, reject_reused_run

logger = logging.getLogger(__name__)
RUN_ID_CHARS = 8


@dataclass(frozen=True)
class Coverage:
    """How many entities the run wrote about, and whether `limit` or `offset` left others out."""

    num_planned: int
    is_sample: bool


@dataclass(frozen=True)
class RunReport:
    """What a finished run has to say."""

    run_id: str
    summary: RunSummary
    coverage: Coverage
    num_users: int
    num_items: int
    datastore_version: str | None  # in force after the run
    examples: list[ExampleText]


@dataclass(frozen=True)
class PlannedRun:
    """A run before its engine starts. `failed`: raw rows and entities that got no prompt."""

    run_id: str
    layout: RunLayout
    plan: pa.Table  # NUMBERED_OUTLINE
    prompts: pa.Table  # PROMPTS, on disk (`pipeline.spool`)
    failed: pa.Table
    tables: DomainTables

    def kinds(self) -> list[KindCounts]:
        """The entities of each kind before anything is generated."""
        return count_kinds(self.prompts, self.plan, self.failed)


def generate_knowledge(
    settings: RunSettings,
    open_progress: Callable[[], AbstractContextManager[ProgressView]],
    only: pa.Table | None = None,
) -> RunReport:
    """Run the whole road; a run that was stopped goes on where it stopped.

    `open_progress` shows the generation while it runs. `only` (columns kind, entity_id): these entities
    rather than the sample of `limit` and `offset`. Raises `PipelineError`; whatever was finished stays.
    """
    started = time.monotonic()
    require_drafter_package(settings.drafter.name)
    reject_what_does_not_fit(settings)
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    run = _prepare(settings, layout, source, only)
    _reject_unprompted(settings, layout, run, source)
    spec, outcome = generate_plan(settings, layout, run, source, open_progress)
    summary = _sum_up(settings, run, outcome)
    objection = summary.objection(settings.knowledge, settings.publish)
    version = None
    may_teach = outcome.num_rows > 0 and objection is None
    if settings.drafter.name == "laser" and may_teach and snapshot_in_force(layout) is None:
        vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
        with stage("adding the texts to the token pools", is_short=True):
            version = extend_pools(
                layout, run.layout, spec.datastore_version, source.tokenizer_hash, vocab_size
            )
    summary = replace(summary, elapsed_sec=time.monotonic() - started)
    _record(settings, run, summary, objection)
    outcome.require_complete(settings.max_failed_fraction)
    if objection is not None:
        raise GenerationError(f"{objection}; the texts are in {run.layout.parts}")
    return _report(settings, layout, run, summary, version)


def generate_plan(
    settings: RunSettings,
    layout: DatasetLayout,
    run: PlannedRun,
    source: ModelSource,
    open_progress: Callable[[], AbstractContextManager[ProgressView]],
) -> tuple[WorkerSpec, GenerationOutcome]:
    """Write the plan and the manifest of `run`, and generate what is not done yet.

    Raises `BusyError`, before anything of the run is touched, if another process works on it.
    """
    vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
    with exclusive(run.layout.root):
        with stage("writing the plan", is_short=True):
            spec = _worker_spec(settings, layout, run, source, vocab_size)
            _note_bound(settings, run)
            _note_repeats(layout, run, spec.datastore_version)
        with open_progress() as progress:
            outcome = run_shards(run.plan, spec, run.layout, _worker_class(), progress.update, run.failed)
    return spec, outcome


def _reject_unprompted(
    settings: RunSettings, layout: DatasetLayout, run: PlannedRun, source: ModelSource
) -> None:
    """Raise `DataError` if so many entities got no prompt that the run will fail, whatever is generated.

    Its plan, manifest and failed rows are written, so that a report tells of it.
    """
    objection = objection_to_prompts(run.kinds(), run.failed, settings.max_failed_fraction)
    if objection is None:
        return
    with exclusive(run.layout.root):
        vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
        _worker_spec(settings, layout, run, source, vocab_size)
        _note_bound(settings, run)
        write_parquet(run.failed, run.layout.failed)
    raise DataError(f"{objection}; nothing was generated, see {run.layout.failed}")


def _note_bound(settings: RunSettings, run: PlannedRun) -> None:
    """Write down what this session is judged by: the entities of each kind, and the bound."""
    recorded = json.loads(run.layout.manifest.read_text(encoding="utf-8"))
    kinds = {counts.kind: asdict(counts) for counts in run.kinds()}
    judged_by = {"kinds": kinds, "max_failed_fraction": settings.max_failed_fraction}
    write_json(recorded | judged_by, run.layout.manifest)


def _note_repeats(layout: DatasetLayout, run: PlannedRun, pools: str | None) -> None:
    """Write down how many planned prompts were answered before by texts that the pools may hold.

    Such a text is drafted from the earlier one, and nearly all of it is accepted: its tokens per step say
    nothing about nights of new prompts.
    """
    recorded = json.loads(run.layout.manifest.read_text(encoding="utf-8"))
    if "num_repeated_prompts" in recorded:  # by the session that began
        return
    num_repeated = 0
    if pools is not None:
        answered = pc.unique(answered_prompts(layout, run.run_id))
        num_repeated = pc.sum(pc.is_in(run.plan["prompt_hash"], value_set=answered), min_count=0).as_py()
    if num_repeated:
        logger.warning(
            "%d of %d prompts were answered before by texts that drafts come from: its tokens per step "
            "are higher than those of new prompts",
            num_repeated,
            run.plan.num_rows,
        )
    write_json(recorded | {"num_repeated_prompts": num_repeated}, run.layout.manifest)


def _worker_class() -> Any:
    from pipeline.generate.worker import KnowledgeWorker

    return KnowledgeWorker


def _prepare(
    settings: RunSettings, layout: DatasetLayout, source: ModelSource, only: pa.Table | None
) -> PlannedRun:
    """Everything before the engine: tables, groups, prompts, plan."""
    tables = read_tables(settings)
    groups = group_tables(settings, tables)
    snapshot = snapshot_in_force(layout)
    if snapshot is not None:
        groups = align_user_groups(groups, read_columns(layout, snapshot, GROUPS.names))
    chosen = choose_entities(settings, groups) if only is None else only_entities(groups, only)
    if not chosen.num_rows:
        raise DataError(f"none of the {groups.num_rows} entities was chosen")
    rendered = render_chosen(settings, tables, chosen, source)
    with stage("planning", is_short=True):
        plan = outline_plan(rendered.prompts, settings.plan.shard_size, scope_of=scope_of(settings))
    with stage("writing the tables", is_short=True):
        write_domain(tables, layout.tables)
    run_id = settings.run_id or _derived_run_id(settings, source, plan)
    failed = pa.concat_tables([tables.failed, rendered.failed])
    return PlannedRun(run_id, layout.run(run_id), plan, rendered.prompts, failed, tables)


def read_tables(settings: RunSettings) -> DomainTables:
    """The raw data as domain tables."""
    with stage(f"reading {raw_data_of(settings.dataset)}"):
        return read_domain(settings.dataset)


def group_tables(settings: RunSettings, tables: DomainTables) -> pa.Table:
    """The groups of all entities (schema GROUPS), from what happened before the cutoff."""
    if settings.history_cutoff is not None:
        cutoff = pa.scalar(settings.history_cutoff, TIMESTAMP)
        visible = tables.interactions.filter(pc.less(tables.interactions["timestamp"], cutoff))
        tables = replace(tables, interactions=visible)
    with stage("grouping users and items", is_short=True):
        groups = group_entities(tables, settings.dataset)
    reject_unknown_groups(settings.acceptance, groups)
    return groups


def choose_entities(settings: RunSettings, groups: pa.Table) -> pa.Table:
    """The rows of `groups` that `limit` and `offset` ask for."""
    chosen = select_entities(groups, settings.limit, offset=settings.offset)
    if not chosen.num_rows:
        raise DataError(f"offset={settings.offset}: no entity is left, there are {groups.num_rows}")
    return chosen


def render_chosen(
    settings: RunSettings, tables: DomainTables, chosen: pa.Table, source: ModelSource
) -> RenderedPrompts:
    """The prompts of `chosen`. Raises `DataError` if one shows an event at or after its cutoff."""
    with stage("loading the tokenizer", is_short=True):
        tokenizer = load_tokenizer(source.path, settings.model.trust_remote_code)
    rendered = render_prompts(
        tables,
        chosen,
        settings.knowledge,
        settings.model,
        settings.dataset.item_word,
        tokenizer,
        settings.history_cutoff,
        rating_range=settings.dataset.rating_range,
        scratch=local_folder(settings.paths.data),
    )
    reject_later_events(rendered.prompts, settings.history_cutoff)
    return rendered


def _derived_run_id(settings: RunSettings, source: ModelSource, plan: pa.Table) -> str:
    """A name for what the run generates, so that the same command resumes and another one does not."""
    content = {
        "settings": run_fingerprint(settings, source.revision, source.tokenizer_hash, None),
        "drafter": settings.drafter.name,
        "acceptance": settings.acceptance_label,
        "plan": sha256_of_rows(plan.select(["shard", "kind", "entity_id", "group", "prompt_hash"])),
    }
    digest = sha256_of_json(content)[:RUN_ID_CHARS]
    return f"{settings.knowledge.name}-{settings.model.name}-{digest}"


def _worker_spec(
    settings: RunSettings, layout: DatasetLayout, run: PlannedRun, source: ModelSource, vocab_size: int
) -> WorkerSpec:
    """Fix what the run depends on. A run that goes on keeps the datastore version of its finished parts."""
    has_begun = run.layout.manifest.exists() and bool(committed_shards(run.layout))
    version = None
    if settings.drafter.name == "laser" and has_begun:
        version = _recorded_version(run.layout)
    elif settings.drafter.name == "laser":
        version = usable_version(layout, source.tokenizer_hash, vocab_size, settings.history_cutoff)
    fingerprint = run_fingerprint(settings, source.revision, source.tokenizer_hash, version)
    _reject_other_run(run, fingerprint, settings)
    write_shards(shards_in_full(run.plan, run.prompts), run.layout.plan)
    if not has_begun:
        write_json(_manifest(settings, run, source, fingerprint, version, vocab_size), run.layout.manifest)
    return WorkerSpec(
        settings=settings,
        model_path=source.path,
        model_revision=source.revision,
        tokenizer_hash=source.tokenizer_hash,
        fingerprint=fingerprint,
        run_id=run.run_id,
        datastore=str((layout.datastore / version).resolve()) if version else None,
        datastore_version=version,
        run_log=str(run.layout.log),
        text_fingerprint=row_fingerprint(settings, source.revision),
        shares_texts=True,
    )


def _reject_other_run(run: PlannedRun, fingerprint: str, settings: RunSettings) -> None:
    """Raise `ConfigError` before anything of an existing run is touched that this one would not continue."""
    reject_reused_run(run.layout, fingerprint, settings)
    if committed_shards(run.layout) and not is_plan_of(run.plan, run.layout.plan):
        raise ConfigError(
            f"run_id={run.run_id}: it was planned for other entities or prompts (limit, offset or data "
            "changed); choose another run_id"
        )


def _recorded_version(run: RunLayout) -> str | None:
    """The datastore version that the run drafts from."""
    try:
        manifest: dict[str, Any] = json.loads(run.manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{run.manifest}: unreadable ({error}); choose another run_id") from error
    return manifest.get("datastore_version")


def _manifest(
    settings: RunSettings,
    run: PlannedRun,
    source: ModelSource,
    fingerprint: str,
    version: str | None,
    vocab_size: int,
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "fingerprint": fingerprint,
        "text_fingerprint": row_fingerprint(settings, source.revision),
        "datastore_version": version,
        "model_revision": source.revision,
        "tokenizer_hash": source.tokenizer_hash,
        "vocab_size": vocab_size,
        "settings": settings.model_dump(mode="json"),
        "num_planned": run.plan.num_rows,
        "num_failed_before_generation": run.failed.num_rows,
    }


def record_summary(
    settings: RunSettings, run: PlannedRun, outcome: GenerationOutcome, elapsed_sec: float
) -> RunSummary:
    """Sum the run up and keep the summary in its manifest. The texts are not judged by the bounds."""
    summary = replace(_sum_up(settings, run, outcome), elapsed_sec=elapsed_sec)
    _record(settings, run, summary, objection=None)
    return summary


def _sum_up(settings: RunSettings, run: PlannedRun, outcome: GenerationOutcome) -> RunSummary:
    """The summary of `run`; what the user waited is not known yet."""
    with stage("summing up", is_short=True):
        return summarize(
            knowledge_dataset(run.layout),
            read_table(run.layout.failed),
            outcome,
            run.layout,
            elapsed_sec=0.0,
            structured=structured_kinds(settings.knowledge),
            aboutness=aboutness_of_run(run.layout),
        )


def _record(settings: RunSettings, run: PlannedRun, summary: RunSummary, objection: str | None) -> None:
    """Keep `summary` in the manifest of `run`, and what this session judged it by and found."""
    for remark in summary.remarks:
        logger.warning("run %s: %s", run.run_id, remark)
    recorded = json.loads(run.layout.manifest.read_text(encoding="utf-8"))
    judged = {"max_failed_fraction": settings.max_failed_fraction, "objection": objection}
    write_json(recorded | judged | {"summary": summary.as_dict()}, run.layout.manifest)


def _report(
    settings: RunSettings,
    layout: DatasetLayout,
    run: PlannedRun,
    summary: RunSummary,
    version: str | None,
) -> RunReport:
    num_users, num_items = run.tables.users.num_rows, run.tables.items.num_rows
    is_cut = settings.limit != "all" and settings.limit < max(num_users, num_items)
    coverage = Coverage(run.plan.num_rows, is_cut or settings.offset > 0)
    examples = example_texts(knowledge_dataset(run.layout), layout.tables)
    return RunReport(run.run_id, summary, coverage, num_users, num_items, version, examples)
