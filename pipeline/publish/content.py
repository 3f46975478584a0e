"""Which rows make the next version: those that a run wrote, and those kept of the version in force."""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from pipeline.errors import DataError, PublishError
from pipeline.failure_bound import KindCounts
from pipeline.id_sets import ids_of, within, without
from pipeline.night.changes import BASE, BASE_COLUMNS, KEEPS_ROW, compare, counts_by_kind, ids_with
from pipeline.plan import read_plan, reject_later_events
from pipeline.pools import PoolModel
from pipeline.printable import plural
from pipeline.publish.snapshot import Snapshot, read_columns
from pipeline.schemas import CHANGES, GROUPS, OUTLINE, conform
from pipeline.sessions import DecodeTime, decode_time
from pipeline.settings import KINDS, Kind
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.location import read_table
from pipeline.storage.parts import finished_shards, knowledge_dataset, planned_shards


@dataclass(frozen=True)
class RunFacts:
    """What the manifest of a run says that publishing needs."""

    fingerprint: str  # of its parts
    text_fingerprint: str
    model: PoolModel
    history_cutoff: datetime | None  # what was asked for
    decode_time: DecodeTime  # of all its sessions
    kinds: dict[str, KindCounts]  # kind -> its entities before anything was generated


@dataclass(frozen=True)
class Content:
    """Which rows make the next version: `fresh` of the run, `kept` of the version in force."""

    base: Snapshot | None
    changes: pa.Table  # CHANGES
    planned: dict[Kind, pa.Array]
    fresh: dict[Kind, pa.Array]
    kept: dict[Kind, pa.Array]
    asked_for: dict[str, KindCounts] = field(default_factory=dict)  # see `RunFacts.kinds`

    @classmethod
    def unchanged(cls, base: Snapshot, changes: pa.Table) -> "Content":
        """That of a night that has nothing to write: the rows of `base`."""
        none = {kind: pa.array([], pa.string()) for kind in KINDS}
        kept = {kind: ids_with(changes, kind, ("carried", "outside")) for kind in KINDS}
        return cls(base, changes, none, none, kept)

    @property
    def expected(self) -> dict[Kind, pa.Array]:
        """Ids of the next version's entities."""
        return {kind: pa.concat_arrays([self.kept[kind], self.fresh[kind]]) for kind in KINDS}

    def sec_per_token(self, measured: float | None) -> float | None:
        """Decode seconds per token: as `measured` in this run, unless the run wrote less than it kept.

        A few texts do not fill a batch: their rate says little about what the kept ones would cost.
        """
        before = self.base.sec_per_token if self.base else None
        num_fresh, num_kept = (sum(map(len, ids.values())) for ids in (self.fresh, self.kept))
        return before if before is not None and (measured is None or num_fresh < num_kept) else measured

    def kinds(self) -> list[KindCounts]:
        """The entities of each kind, and what became of them."""
        return [
            replace(
                self.asked_for.get(kind, KindCounts(kind, num_prompts=len(self.planned[kind]))),
                num_planned=len(self.planned[kind]),
                num_failed=len(without(self.planned[kind], self.fresh[kind])),
                num_kept=len(self.kept[kind]),
            )
            for kind in KINDS
        ]

    def counts(self) -> dict[Kind, dict[str, int]]:
        """For each kind: entities of each change, `planned`, `failed`, and of these `kept_old`."""
        counts = counts_by_kind(self.changes)
        for kind in KINDS:
            failed = without(self.planned[kind], self.fresh[kind])
            counts[kind]["failed"] = len(failed)
            counts[kind]["kept_old"] = len(within(failed, self.kept[kind]))
        return counts


def read_facts(run: RunLayout) -> RunFacts:
    """The facts of `run`; `DataError` if there is no such run, or its manifest lacks them."""
    try:
        manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
        model, cutoff = manifest["settings"]["model"], manifest["settings"]["history_cutoff"]
        return RunFacts(
            fingerprint=manifest["fingerprint"],
            text_fingerprint=manifest["text_fingerprint"],
            model=PoolModel(
                model["name"],
                manifest["model_revision"],
                manifest["tokenizer_hash"],
                manifest["vocab_size"],
            ),
            history_cutoff=datetime.fromisoformat(cutoff) if cutoff else None,
            decode_time=decode_time(run, manifest.get("summary") or {}),
            kinds={kind: KindCounts(**counts) for kind, counts in manifest.get("kinds", {}).items()},
        )
    except FileNotFoundError as error:
        raise DataError(f"run_id={run.root.name}: there is no such run in {run.root.parent}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run.manifest}: unreadable, or of an older version: {error}") from error


def content_of_run(layout: DatasetLayout, run: RunLayout, base: Snapshot | None) -> Content:
    """What the snapshot made of `run` and `base` holds.

    The run is read and checked part by part; raises `PublishError` if a shard is not finished, and
    `DataError` if a prompt shows later events than its cutoff.
    """
    facts = read_facts(run)
    plan = read_plan(run.plan, OUTLINE)
    reject_later_events(plan, facts.history_cutoff)
    finished = finished_shards(run, facts.fingerprint, plan)
    missing = [shard for shard in planned_shards(plan) if shard not in finished]
    if missing:
        raise PublishError(
            f"run {run.root.name} is not complete: {plural(len(missing), 'shard')}, such as {missing[0]}"
        )
    rows = _base_rows(layout, base)
    changes = _changes_of(layout, run, plan, rows, facts)
    written = (
        knowledge_dataset(run).to_table(columns=["kind", "entity_id"]) if finished else BASE.empty_table()
    )
    fresh = {kind: ids_of(written, kind) for kind in KINDS}
    kept = {
        kind: without(within(ids_of(rows, kind), ids_with(changes, kind, KEEPS_ROW)), fresh[kind])
        for kind in KINDS
    }
    planned = {kind: ids_of(plan, kind) for kind in KINDS}
    return Content(base, changes, planned, fresh, kept, facts.kinds)


def _changes_of(
    layout: DatasetLayout, run: RunLayout, plan: pa.Table, rows: pa.Table, facts: RunFacts
) -> pa.Table:
    """What the night wrote down when it planned, or for a plain run what its plan and the tables say."""
    if run.changes.exists():
        return conform(read_table(run.changes), CHANGES, str(run.changes), unique=("kind", "entity_id"))
    known = [plan.select(GROUPS.names), *_known_entities(layout)]
    everyone = pa.concat_tables(known).group_by(GROUPS.names[:2]).aggregate([])
    return compare(
        rows, plan, plan.select(GROUPS.names), everyone, facts.text_fingerprint, facts.history_cutoff
    )


def _known_entities(layout: DatasetLayout) -> list[pa.Table]:
    """The entities of the data tables, schema GROUPS; `DataError` if the tables are not there."""
    tables = []
    for kind in KINDS:
        path = layout.tables / f"{kind}s.parquet"
        if not path.exists():
            raise DataError(f"{path}: not there; which entities are gone cannot be told")
        ids = read_table(path, columns=[f"{kind}_id"])[f"{kind}_id"].combine_chunks()
        tables.append(pa.table([ids, pa.repeat(kind, len(ids)), pa.repeat("", len(ids))], schema=GROUPS))
    return tables


def _base_rows(layout: DatasetLayout, base: Snapshot | None) -> pa.Table:
    return BASE.empty_table() if base is None else read_columns(layout, base, BASE_COLUMNS)
