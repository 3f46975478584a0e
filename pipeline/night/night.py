"""A night: what changed is generated, the rest carried over, and both put in force together.

tables, groups, prompts, plan, generate, quality (if enabled), snapshot, validate, datastore, publish,
report. What was published before stays in force until `publish`, which is one atomic step; a night that
stops anywhere goes on under its run id when the same command is given again. One night at a time works on a
dataset.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from pipeline.domains import write_domain
from pipeline.errors import ConfigError, CorruptPartError, StorageError
from pipeline.generate.optional_packages import require_drafter_package
from pipeline.generate.progress import ProgressView
from pipeline.generate.ray_cluster import reject_what_does_not_fit
from pipeline.models import resolve_model
from pipeline.night.changes import counts_by_kind, is_unchanged
from pipeline.night.cutoff import cutoff_values, with_cutoff_of_the_night
from pipeline.night.figures import night_figures
from pipeline.night.planning import (
    NightPlan,
    Prepared,
    check_unprompted,
    day_of,
    plan_night,
    provisional_run,
)
from pipeline.night.record import NightRecord, NightStopped, is_finished, read_record
from pipeline.publish.content import Content, content_of_run, read_facts
from pipeline.publish.mending import mend_pools_in_force
from pipeline.publish.release import check_gone, publish_run
from pipeline.publish.snapshot import Snapshot
from pipeline.publish.versions import prune_if_possible
from pipeline.road import (
    choose_entities,
    generate_plan,
    group_tables,
    read_tables,
    record_summary,
    render_chosen,
)
from pipeline.sessions import DecodeTime, decode_time
from pipeline.settings import KINDS, RunSettings
from pipeline.stages import stage
from pipeline.storage.files import write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout, models_folder
from pipeline.storage.lock import OwnedLock, owned
from pipeline.storage.reserve import keep_reserve, with_reserve

logger = logging.getLogger(__name__)
OpenProgress = Callable[[], AbstractContextManager[ProgressView]]
WORKING_STEPS = ("generate", "snapshot", "validate", "datastore", "publish")


@dataclass(frozen=True)
class NightReport:
    """What a night has to say. `values` are those of `night.json`."""

    run_id: str | None
    values: dict[str, Any]
    steps: list[dict[str, Any]]
    stopped_after: str | None  # what `nightly.stop_after` asked for


def finished_night(settings: RunSettings, layout: DatasetLayout) -> NightReport | None:
    """What the night `settings.run_id` did, if it came to its end; None if it is not there or not done.

    A scheduler that lost the exit code of a night starts it again: nothing is left to do then, whatever the
    data says by now. Raises `ConfigError` if that night had other settings.
    """
    if settings.run_id is None:
        return None
    try:
        recorded = read_record(layout.run(settings.run_id).night)
    except CorruptPartError:
        return None  # the night that goes on names the file
    if recorded is None or not is_finished(recorded):
        return None
    asked_for = cutoff_values(settings)
    if settings.cutoff_word is not None:
        del asked_for["history_cutoff"]  # the day of the night, which may have ended since
    if any(recorded.get(key, value) != value for key, value in asked_for.items()):
        raise ConfigError(
            f"run_id={settings.run_id}: that night is done, with other settings; choose another run_id"
        )
    return NightReport(settings.run_id, recorded, recorded["steps"], None)


def run_night(settings: RunSettings, open_progress: OpenProgress) -> NightReport:
    """Run the night, or what is left of it. However it ends, its record and its report say so.

    One that is done is left as it is, also while another process works on the dataset.

    Raises `BusyError` if another process works on the dataset, `PublishError` if the new snapshot is not
    valid, any other `PipelineError` for what its step says. What is done is kept, and what was in force
    stays so.
    """
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    done = finished_night(settings, layout)
    if done is not None:
        return done
    stopped_after = None
    name = settings.run_id or f"the night of {day_of(settings)}"
    with ExitStack() as held:
        # Without the lock a night that finds the disk full could tell nobody.
        lock = with_reserve(layout.reserve, lambda: held.enter_context(owned(layout.lock, name)))
        record = NightRecord(settings.dataset.name, settings.nightly.stop_after, lock.require_held)
        try:
            keep_reserve(layout.reserve)
            _run_steps(settings, layout, record, lock, open_progress)
        except NightStopped as stop:
            stopped_after = str(stop)
        except BaseException as error:
            if lock.is_held():  # else the run and its report are another process's
                _tell_failure(settings, layout, record, error)
            raise
    return NightReport(record.run_id, record.values, list(record.steps.values()), stopped_after)


def _run_steps(
    settings: RunSettings,
    layout: DatasetLayout,
    record: NightRecord,
    lock: OwnedLock,
    open_progress: OpenProgress,
) -> None:
    settings = with_cutoff_of_the_night(settings, layout)
    first = provisional_run(settings, layout)
    lock.rename(first.root.name)
    record.begin(first, **cutoff_values(settings))
    require_drafter_package(settings.drafter.name)
    reject_what_does_not_fit(settings)
    prepared = _prepare(settings, layout, record)
    with record.step("plan"), stage("comparing with what is published"):
        mend_pools_in_force(layout, lock.require_held)
        night = plan_night(settings, layout, prepared)
        lock.rename(night.run.run_id)
        _bind(record, night)
        check_gone(night.base, night.changes, settings.publish.max_gone_fraction)
        check_unprompted(settings, night)
    _work(settings, layout, record, night, prepared, lock, open_progress)
    record.finish()
    with record.step("report"), stage("writing the report"):
        _write_report(night.run.layout, layout, settings.report.pushgateway)


def _prepare(settings: RunSettings, layout: DatasetLayout, record: NightRecord) -> Prepared:
    with record.step("tables"):
        tables = read_tables(settings)
        with stage("writing the tables", is_short=True):
            write_domain(tables, layout.tables)
    with record.step("groups"):
        groups = group_tables(settings, tables)
        chosen = choose_entities(settings, groups)
    with record.step("prompts"):
        source = resolve_model(settings.model, models_folder(settings.paths.data))
        rendered = render_chosen(settings, tables, chosen, source)
    return Prepared(tables, groups, chosen, rendered, source)


def _bind(record: NightRecord, night: NightPlan) -> None:
    """Write down which night this is and what it has to do."""
    run = night.run.layout
    record.bind(run, night.identity, night.base.version if night.base else None)
    if not run.changes.exists() and not is_unchanged(night.changes):
        write_parquet(night.changes, run.changes)
    nothing_yet = {"failed": 0, "kept_old": 0}
    counts = {kind: of_kind | nothing_yet for kind, of_kind in counts_by_kind(night.changes).items()}
    record.set(counts=counts)
    for kind in KINDS:
        logger.info("%ss: %s", kind, ", ".join(f"{name} {n:,}" for name, n in counts[kind].items() if n))


def _work(
    settings: RunSettings,
    layout: DatasetLayout,
    record: NightRecord,
    night: NightPlan,
    prepared: Prepared,
    lock: OwnedLock,
    open_progress: OpenProgress,
) -> None:
    """Generate, publish, prune; nothing of it if nothing changed: then the version in force is confirmed."""
    if night.base is not None and is_unchanged(night.changes):
        content = Content.unchanged(night.base, night.changes)
        _note_figures(layout, record, content, night.run.layout, DecodeTime())
        record.skip(*WORKING_STEPS)
        _note_version(record, night.base)
        return
    with record.step("generate"):
        _generate(settings, layout, record, night, prepared, open_progress)
    if settings.quality.enabled:
        with record.step("quality"):
            _check_quality(settings, night.run.layout, prepared, open_progress)
    content = content_of_run(layout, night.run.layout, night.base)
    _note_figures(layout, record, content, night.run.layout, read_facts(night.run.layout).decode_time)
    snapshot = publish_run(layout, night.run.layout, settings, content, record.step, lock.require_held)
    _note_version(record, snapshot)
    removed = prune_if_possible(layout, settings.publish.keep_versions, lock.require_held)
    if removed:
        logger.info("removed old versions: %s", ", ".join(removed))


def _generate(
    settings: RunSettings,
    layout: DatasetLayout,
    record: NightRecord,
    night: NightPlan,
    prepared: Prepared,
    open_progress: OpenProgress,
) -> None:
    """Write what is missing of the plan. Failed rows are judged when the snapshot is validated."""
    started = time.monotonic()
    _, outcome = generate_plan(settings, layout, night.run, prepared.source, open_progress)
    _note_decoding(record, night.run.layout)  # first, because it asks whether the lock is still held
    if outcome.num_shards_run or "summary" not in (read_record(night.run.layout.manifest) or {}):
        record_summary(settings, night.run, outcome, time.monotonic() - started)
    outcome.require_complete(max_failed_fraction=1.0)


def _check_quality(
    settings: RunSettings, run: RunLayout, prepared: Prepared, open_progress: OpenProgress
) -> None:
    """The quality gate, before anything of the night is published."""
    from pipeline.encode import load_encoder  # torch: not before it is needed
    from pipeline.quality import check_quality

    encoder = settings.encoder
    check_quality(
        settings, run, prepared.source, lambda texts: load_encoder(encoder).encode(texts), open_progress
    )


def _note_decoding(record: NightRecord, run: RunLayout) -> None:
    """Put down what decoding took so far, in all sessions of the night."""
    record.set(decode_sec=decode_time(run).decode_sec)


def _note_figures(
    layout: DatasetLayout,
    record: NightRecord,
    content: Content,
    run: RunLayout,
    spent: DecodeTime,
) -> None:
    rate = content.sec_per_token(spent.sec_per_token)
    figures = night_figures(layout, run, content)
    record.set(
        counts=content.counts(),
        by_change=figures.by_change,
        num_carried_tokens=figures.num_carried_tokens,
        decode_sec=spent.decode_sec,
        saved_decode_sec=None if rate is None else round(figures.num_carried_tokens * rate, 3),
    )


def _note_version(record: NightRecord, snapshot: Snapshot) -> None:
    record.set(version=snapshot.version, datastore_version=snapshot.datastore_version)


def _tell_failure(
    settings: RunSettings, layout: DatasetLayout, record: NightRecord, error: BaseException
) -> None:
    """Record and report of a night that failed; what is wrong with either does not hide the reason."""
    try:
        with_reserve(layout.reserve, lambda: _note_failure(layout, record, error))
    except Exception as problem:  # noqa: BLE001  see above
        logger.warning("the record of this night does not say why it failed: %s", problem)
    if record.run_id is None or (record.has_failed_at("report") and not isinstance(error, StorageError)):
        return
    run = layout.run(record.run_id)
    try:
        with_reserve(layout.reserve, lambda: _write_report(run, layout, settings.report.pushgateway))
    except Exception as problem:  # noqa: BLE001  see above
        logger.warning("no report of this night: %s", problem)


def _note_failure(layout: DatasetLayout, record: NightRecord, error: BaseException) -> None:
    record.fail(error)
    if record.run_id is not None and layout.run(record.run_id).progress.exists():
        _note_decoding(record, layout.run(record.run_id))


def _write_report(run: RunLayout, layout: DatasetLayout, pushgateway: str | None) -> None:
    from pipeline.report import write_report  # matplotlib and more: not before it is needed

    write_report(run, layout, pushgateway)
