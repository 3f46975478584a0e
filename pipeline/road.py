"""The whole road of a run: raw data to finished knowledge rows and extended pools."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domains import DomainTables, read_domain, write_domain
from pipeline.errors import ConfigError, DataError
from pipeline.fingerprint import run_fingerprint
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.dispatch import GenerationOutcome, run_shards
from pipeline.generate.optional_packages import require_drafter_package
from pipeline.generate.progress import ProgressView
from pipeline.generate.summary import RunSummary, summarize
from pipeline.groups import group_entities
from pipeline.models import ModelSource, resolve_model
from pipeline.models.tokenizer import load_tokenizer, vocabulary_size
from pipeline.plan import make_plan, read_plan, select_entities, write_plan
from pipeline.pools import extend_pools, usable_version
from pipeline.prompts import render_prompts
from pipeline.prompts.outputs import structured_kinds
from pipeline.settings import RunSettings
from pipeline.storage.files import sha256_of_json, write_json
from pipeline.storage.layout import DatasetLayout, RunLayout, models_folder
from pipeline.storage.parts import committed_shards, knowledge_dataset, reject_reused_run

logger = logging.getLogger(__name__)
RUN_ID_CHARS = 8


@dataclass(frozen=True)
class Coverage:
    """How many entities the run wrote about, of how many there are."""

    num_planned: int
    num_entities: int

    @property
    def is_sample(self) -> bool:
        """Whether entities were left out on purpose."""
        return self.num_planned < self.num_entities


@dataclass(frozen=True)
class RunReport:
    """What a finished run has to say."""

    run_id: str
    summary: RunSummary
    coverage: Coverage
    num_users: int
    num_items: int
    datastore_version: str | None  # in force after the run


@dataclass(frozen=True)
class _PlannedRun:
    run_id: str
    layout: RunLayout
    plan: pa.Table
    failed: pa.Table
    tables: DomainTables


def generate_knowledge(
    settings: RunSettings, open_progress: Callable[[], AbstractContextManager[ProgressView]]
) -> RunReport:
    """Run the whole road; a run that was stopped goes on where it stopped.

    `open_progress` shows the generation while it runs. Raises `PipelineError`; whatever was finished stays.
    """
    started = time.monotonic()
    require_drafter_package(settings.drafter.name)
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    run = _prepare(settings, layout, source)
    vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
    spec = _worker_spec(settings, layout, run, source, vocab_size)
    with open_progress() as progress:
        outcome = run_shards(run.plan, spec, run.layout, _worker_class(), progress.update, run.failed)
    version = None
    if settings.drafter.name == "laser" and outcome.num_rows:
        version = extend_pools(layout, run.layout, spec.datastore_version, source.tokenizer_hash, vocab_size)
    return _report(settings, run, spec, outcome, version, time.monotonic() - started)


def _worker_class() -> Any:
    from pipeline.generate.worker import KnowledgeWorker

    return KnowledgeWorker


def _prepare(settings: RunSettings, layout: DatasetLayout, source: ModelSource) -> _PlannedRun:
    """Everything before the engine: tables, groups, prompts, plan."""
    dataset = settings.dataset
    logger.info("reading %s", dataset.raw or f"the embedded sample of {dataset.name}")
    tables = read_domain(dataset)
    groups = group_entities(tables, dataset)
    chosen = select_entities(groups, settings.limit, offset=settings.offset)
    if not chosen.num_rows:
        raise DataError(f"offset={settings.offset}: no entity is left, there are {groups.num_rows}")
    tokenizer = load_tokenizer(source.path, settings.model.trust_remote_code)
    rendered = render_prompts(
        tables,
        chosen,
        settings.knowledge,
        settings.model,
        dataset.item_word,
        tokenizer,
        settings.history_cutoff,
        rating_range=dataset.rating_range,
    )
    plan = make_plan(rendered.prompts, settings.plan.shard_size)
    if not plan.num_rows:
        raise DataError(f"no prompt could be written: {rendered.failed['reason'][0].as_py()}")
    write_domain(tables, layout.tables)
    run_id = settings.run_id or _derived_run_id(settings, source, plan)
    failed = pa.concat_tables([tables.failed, rendered.failed])
    return _PlannedRun(run_id, layout.run(run_id), plan, failed, tables)


def _derived_run_id(settings: RunSettings, source: ModelSource, plan: pa.Table) -> str:
    """A name for what the run generates, so that the same command resumes and another one does not."""
    content = {
        "settings": run_fingerprint(settings, source.revision, source.tokenizer_hash, None),
        "drafter": settings.drafter.name,
        "acceptance": settings.acceptance_label,
        "plan": [plan[name].to_pylist() for name in ("shard", "kind", "entity_id", "group", "prompt_hash")],
    }
    digest = sha256_of_json(content)[:RUN_ID_CHARS]
    return f"{settings.knowledge.name}-{settings.model.name}-{digest}"


def _worker_spec(
    settings: RunSettings, layout: DatasetLayout, run: _PlannedRun, source: ModelSource, vocab_size: int
) -> WorkerSpec:
    """Fix what the run depends on. A run that goes on keeps the datastore version that it began with."""
    version = None
    if settings.drafter.name == "laser":
        begun, version = _recorded_version(run.layout)
        if not begun:
            version = usable_version(layout, source.tokenizer_hash, vocab_size)
    fingerprint = run_fingerprint(settings, source.revision, source.tokenizer_hash, version)
    _reject_other_run(run, fingerprint, settings)
    write_plan(run.plan, run.layout.plan)
    if not run.layout.manifest.exists():
        write_json(_manifest(settings, run, source, fingerprint, version), run.layout.manifest)
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
    )


def _reject_other_run(run: _PlannedRun, fingerprint: str, settings: RunSettings) -> None:
    """Raise `ConfigError` before anything of an existing run is touched that this one would not continue."""
    reject_reused_run(run.layout, fingerprint, settings)
    if committed_shards(run.layout) and not read_plan(run.layout.plan).equals(run.plan):
        raise ConfigError(
            f"run_id={run.run_id}: it was planned for other entities or prompts (limit, offset or data "
            "changed); choose another run_id"
        )


def _recorded_version(run: RunLayout) -> tuple[bool, str | None]:
    """(whether the run was begun before, the datastore version it drafts from)."""
    try:
        manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False, None
    except ValueError as error:
        raise DataError(f"{run.manifest}: unreadable ({error}); choose another run_id") from error
    return True, manifest.get("datastore_version")


def _manifest(
    settings: RunSettings, run: _PlannedRun, source: ModelSource, fingerprint: str, version: str | None
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "fingerprint": fingerprint,
        "datastore_version": version,
        "model_revision": source.revision,
        "tokenizer_hash": source.tokenizer_hash,
        "settings": settings.model_dump(mode="json"),
        "num_planned": run.plan.num_rows,
        "num_failed_before_generation": run.failed.num_rows,
    }


def _report(
    settings: RunSettings,
    run: _PlannedRun,
    spec: WorkerSpec,
    outcome: GenerationOutcome,
    version: str | None,
    elapsed_sec: float,
) -> RunReport:
    failed = pq.read_table(run.layout.failed)
    summary = summarize(
        knowledge_dataset(run.layout),
        failed,
        outcome,
        run.layout,
        elapsed_sec,
        structured_kinds(settings.knowledge),
    )
    recorded = json.loads(run.layout.manifest.read_text(encoding="utf-8"))
    write_json(recorded | {"summary": summary.as_dict()}, run.layout.manifest)
    outcome.require_complete(settings.max_failed_fraction)
    num_users, num_items = run.tables.users.num_rows, run.tables.items.num_rows
    coverage = Coverage(run.plan.num_rows, num_users + num_items)
    return RunReport(run.run_id, summary, coverage, num_users, num_items, version)
