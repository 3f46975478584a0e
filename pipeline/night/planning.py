"""What a night has to do: over which snapshot, which entities, under which run id."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains import DomainTables
from pipeline.errors import ConfigError, DataError
from pipeline.failure_bound import objection_to_prompts
from pipeline.fingerprint import row_fingerprint, run_fingerprint
from pipeline.groups.alignment import align_user_groups
from pipeline.models import ModelSource
from pipeline.night.changes import BASE, BASE_COLUMNS, compare, counts_by_kind, groups_of, is_planned
from pipeline.night.record import free_run_id, is_finished, read_record, unfinished_night, unfinished_record
from pipeline.outline import outline_plan
from pipeline.prompts import RenderedPrompts
from pipeline.publish.snapshot import (
    Snapshot,
    read_columns,
    read_snapshot,
    snapshot_in_force,
    verify_files,
    versions,
    was_left,
)
from pipeline.road import PlannedRun
from pipeline.schemas import PROMPTS
from pipeline.settings import KINDS, RunSettings
from pipeline.sharing import scope_of
from pipeline.storage.files import sha256_of_json, sha256_of_rows
from pipeline.storage.layout import DatasetLayout, RunLayout

TONIGHT_COLUMNS = ["kind", "entity_id", "prompt_hash"]


@dataclass(frozen=True)
class Prepared:
    """Everything about tonight's entities that does not depend on what was published before."""

    tables: DomainTables
    groups: pa.Table  # GROUPS, of all entities
    chosen: pa.Table  # GROUPS, of those that `limit` and `offset` ask for
    rendered: RenderedPrompts
    source: ModelSource


@dataclass(frozen=True)
class NightPlan:
    """What the night is: its run, the snapshot that it goes from, and what changed since."""

    run: PlannedRun
    base: Snapshot | None
    changes: pa.Table  # CHANGES
    identity: str  # a night that stopped is found again by this


def plan_night(settings: RunSettings, layout: DatasetLayout, prepared: Prepared) -> NightPlan:
    """Compare tonight's prompts with the snapshot in force, and find the run of a night that stopped.

    A night that stopped goes on if it was about the same: data, settings, and snapshot in force; one that
    stopped right after it put its own snapshot in force is told by the snapshot before that. Raises
    `ConfigError` if the `run_id` that was asked for is that of another night.
    """
    in_force = snapshot_in_force(layout)
    if in_force is not None and unfinished_record(layout, in_force.run_id) is not None:
        for before in _version_before(layout, in_force):
            night = _over(settings, layout, prepared, before)
            if unfinished_night(layout, night.identity) == in_force.run_id:
                return _named(layout, night, in_force.run_id)
    night = _over(settings, layout, prepared, in_force)
    return _named(layout, night, _run_id(settings, layout, night.identity))


def check_unprompted(settings: RunSettings, night: NightPlan) -> None:
    """Raise `DataError` if so many entities got no prompt that the night would fail after the generation."""
    before = night.base.counts if night.base else {}
    changes = counts_by_kind(night.changes)
    kept = {kind: before.get(kind, 0) - changes[kind]["gone"] - changes[kind]["withheld"] for kind in KINDS}
    kinds = [replace(counts, num_kept=kept[counts.kind]) for counts in night.run.kinds()]
    objection = objection_to_prompts(kinds, night.run.failed, settings.max_failed_fraction)
    if objection is not None:
        raise DataError(f"{objection}; nothing was generated")


def _version_before(layout: DatasetLayout, snapshot: Snapshot) -> list[Snapshot | None]:
    """What `snapshot` was made from (None: from nothing); an empty list if that is gone."""
    name = snapshot.previous_version
    if name is None:
        return [None]
    return [read_snapshot(layout, name)] if name in versions(layout) else []


def _over(
    settings: RunSettings, layout: DatasetLayout, prepared: Prepared, base: Snapshot | None
) -> NightPlan:
    """The night over `base`; its run has no name yet."""
    if base is not None:  # what is damaged would be found when the new version is written: after the texts
        verify_files(layout, base.version, base.files)
    rows = BASE.empty_table() if base is None else read_columns(layout, base, BASE_COLUMNS)
    fingerprint = row_fingerprint(settings, prepared.source.revision)
    prompts = prepared.rendered.prompts
    tonight = prompts.select(TONIGHT_COLUMNS)
    changes = compare(rows, tonight, prepared.chosen, prepared.groups, fingerprint, settings.history_cutoff)
    prompts = _regrouped(prompts, align_user_groups(prepared.groups, groups_of(rows)))
    planned = is_planned(tonight, changes)
    plan = outline_plan(prompts, settings.plan.shard_size, planned, scope_of(settings))
    failed = pa.concat_tables([prepared.tables.failed, prepared.rendered.failed])
    run = PlannedRun("", layout.run("_"), plan, prompts, failed, prepared.tables)
    return NightPlan(run, base, changes, _identity(settings, prepared, base, changes))


def _named(layout: DatasetLayout, night: NightPlan, run_id: str) -> NightPlan:
    return replace(night, run=replace(night.run, run_id=run_id, layout=layout.run(run_id)))


def _regrouped(prompts: pa.Table, groups: pa.Table) -> pa.Table:
    """`prompts` with the groups of `groups`, which holds all their entities."""
    names = np.empty(prompts.num_rows, dtype=np.int64)
    for kind in KINDS:
        rows, named = (np.flatnonzero(pc.equal(table["kind"], kind)) for table in (prompts, groups))
        ids = groups["entity_id"].take(named).combine_chunks()
        names[rows] = named[pc.index_in(prompts["entity_id"].take(rows), value_set=ids)]
    column = PROMPTS.get_field_index("group")
    return prompts.set_column(column, PROMPTS.field("group"), groups["group"].take(names))


def _run_id(settings: RunSettings, layout: DatasetLayout, identity: str) -> str:
    """The id that was asked for, that of the night that stopped, or the day's."""
    if settings.run_id is None:
        return unfinished_night(layout, identity) or free_run_id(layout, day_of(settings))
    run = layout.run(settings.run_id)
    earlier = read_record(run.night)
    if earlier is None and run.manifest.exists():
        raise ConfigError(
            f"run_id={settings.run_id}: that is no night; python -m jobs.publish run_id={settings.run_id} "
            "publishes it"
        )
    if earlier is not None and (earlier.get("identity") not in (None, identity) or is_finished(earlier)):
        what = "is done" if is_finished(earlier) else "was about other data or settings"
        raise ConfigError(f"run_id={settings.run_id}: that night {what}; choose another run_id, or none")
    if was_left(layout, settings.run_id):
        raise ConfigError(
            f"run_id={settings.run_id}: a rollback left that night's version; choose another run_id, or none"
        )
    return settings.run_id


def provisional_run(settings: RunSettings, layout: DatasetLayout) -> RunLayout:
    """Where the night is told before its plan says which night it is; never the run of something else."""
    if settings.run_id is not None:
        run = layout.run(settings.run_id)
        if unfinished_record(layout, settings.run_id) is not None or not run.root.exists():
            return run
    return layout.run(free_run_id(layout, day_of(settings)))


def day_of(settings: RunSettings) -> str:
    """The day a night is named after: that of the cutoff, or today in UTC."""
    return (settings.history_cutoff or datetime.now(UTC)).date().isoformat()


def _identity(settings: RunSettings, prepared: Prepared, base: Snapshot | None, changes: pa.Table) -> str:
    """A hash of all that decides what the night does."""
    source = prepared.source
    return sha256_of_json(
        {
            "settings": run_fingerprint(settings, source.revision, source.tokenizer_hash, None),
            "drafter": settings.drafter.name,
            "acceptance": settings.acceptance_label,
            "shard_size": settings.plan.shard_size,
            "base": base.version if base else None,
            "prompts": sha256_of_rows(prepared.rendered.prompts.select(TONIGHT_COLUMNS)),
            "changes": sha256_of_rows(changes),
        }
    )
