"""From a finished run to the next version in force: write, validate, build its pools, put both in force.

Nothing of the version in force is touched before `CURRENT` is replaced, which is the last step. Whatever
stops in between is begun again: the files of an incomplete version are written anew, a complete one is
only put in force. A process that was taken for dead may wake up in any step, when another one has completed
the version: so each step asks for the lock before it writes or removes anything.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from drafters.datastore.format import CALIBRATION
from pipeline.errors import PublishError
from pipeline.failure_bound import NUM_ALWAYS_ALLOWED, first_objection
from pipeline.generate.aboutness import aboutness_of_run, objection_to_aboutness
from pipeline.night.changes import counts_by_kind
from pipeline.pools import build_snapshot_pools, read_calibration, verify_pools
from pipeline.publish.content import Content, read_facts
from pipeline.publish.mending import mend_pools
from pipeline.publish.snapshot import (
    SUCCESS,
    Snapshot,
    SnapshotFile,
    clear_left,
    name_in_force,
    put_in_force,
    read_snapshot,
    snapshot_in_force,
    verify_files,
    was_left,
)
from pipeline.publish.validation import Validation, validate_snapshot
from pipeline.publish.writer import write_snapshot
from pipeline.settings import KnowledgeSettings, RunSettings
from pipeline.stages import stage
from pipeline.storage.files import read_json, remove_folder, write_json
from pipeline.storage.layout import DatasetLayout, RunLayout

EnterStep = Callable[[str], AbstractContextManager[Any]]


def publish_run(
    layout: DatasetLayout,
    run: RunLayout,
    settings: RunSettings,
    content: Content,
    step: EnterStep,
    require_lock: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Make the version named after `run` of `content`, and put it in force with its datastore.

    Raises `PublishError` if it is not valid; then the version in force stays, and what was written stays
    for inspection. `require_lock` raises if this process has lost the dataset's lock.
    """
    version = run.root.name
    if (layout.snapshot(version) / SUCCESS).exists():
        snapshot = read_snapshot(layout, version)
        _reject_superseded(layout, snapshot)
        snapshot = mend_pools(layout, snapshot, require_lock)
    else:
        files, validation = write_and_validate(layout, run, settings, content, step, require_lock)
        with step("datastore"), stage("building the token pools"):
            require_lock()
            datastore = _build_pools(layout, run, content, files)
        snapshot = _snapshot(run, content, files, validation, datastore)
    with step("publish"), stage(f"publishing {version}"):
        verify_pools(layout, str(snapshot.datastore_version))
        require_lock()
        write_json(snapshot.model_dump(mode="json"), layout.snapshot(version) / SUCCESS)
        require_lock()
        before = name_in_force(layout)
        if before is not None:  # a rollback to it that was interrupted may have left its mark
            clear_left(layout, before)
        put_in_force(layout, version)
    return snapshot


def write_and_validate(
    layout: DatasetLayout,
    run: RunLayout,
    settings: RunSettings,
    content: Content,
    step: EnterStep,
    require_lock: Callable[[], None] = lambda: None,
) -> tuple[list[SnapshotFile], Validation]:
    """Write the files of the version named after `run` and check them; see `publish_run`."""
    version = run.root.name
    with step("snapshot"), stage(f"writing version {version}"):
        if content.base is not None:
            verify_files(layout, content.base.version, content.base.files)
        _clear(layout, version, require_lock)
        files = write_snapshot(layout, version, run, content.base, content.kept, require_lock)
    with step("validate"), stage(f"validating version {version}"):
        try:
            check_failures(content, settings.max_failed_fraction)
            check_gone(content.base, content.changes, settings.publish.max_gone_fraction)
            validation = validate_snapshot(
                layout, version, files, content.expected, version, settings.publish
            )
            check_aboutness(run, settings)
        except PublishError as error:
            require_lock()
            write_json({"is_valid": False, "reason": str(error)}, run.validation)
            raise
        require_lock()
        write_json({"is_valid": True, **validation.as_dict()}, run.validation)
    return files, validation


def check_aboutness(run: RunLayout, settings: RunSettings) -> None:
    """Raise `PublishError` if the texts of `run` say too little of their entities.

    The bounds are those of the prompt set that the run used; `settings` may change them if it is theirs.
    """
    recorded = ((read_json(run.manifest) or {}).get("settings") or {}).get("knowledge")
    knowledge = settings.knowledge
    if recorded is not None and recorded.get("name") != knowledge.name:
        knowledge = KnowledgeSettings.model_validate(recorded)
    if objection := objection_to_aboutness(aboutness_of_run(run), knowledge, settings.publish):
        raise PublishError(f"run {run.root.name}: {objection}")


def _clear(layout: DatasetLayout, version: str, require_lock: Callable[[], None]) -> None:
    """Remove what an earlier try left of `version`, unless that is complete by now."""
    require_lock()
    if (layout.snapshot(version) / SUCCESS).exists() or name_in_force(layout) == version:
        raise PublishError(f"version {version} was completed by another process; run the same command again")
    remove_folder(layout.snapshot(version))


def check_failures(content: Content, max_failed_fraction: float) -> None:
    """Raise `PublishError` for the first kind that has an objection to it; see `KindCounts.objection`."""
    objection = first_objection(content.kinds(), max_failed_fraction)
    if objection is not None:
        raise PublishError(f"{objection}; see failed.parquet")


def check_gone(base: Snapshot | None, changes: pa.Table, max_gone_fraction: float) -> None:
    """Raise `PublishError` if more of a kind would leave the snapshot in force than its data should lose.

    A truncated export looks like entities that are gone. One of a kind may leave in any case, unless the
    fraction is 0.
    """
    if base is None:
        return
    for kind, counts in counts_by_kind(changes).items():
        num_leaving = counts["gone"] + counts["withheld"]
        num_before = base.counts.get(kind, 0)
        if num_leaving > max(max_gone_fraction * num_before, NUM_ALWAYS_ALLOWED if max_gone_fraction else 0):
            raise PublishError(
                f"{num_leaving} of {num_before} {kind}s in force would leave the snapshot ({counts['gone']} "
                f"are gone from the data, {counts['withheld']} saw events after history_cutoff), more than "
                f"publish.max_gone_fraction={max_gone_fraction:g} allows; is the data complete? If so, the "
                "same command with publish.max_gone_fraction=1 goes on"
            )


def require_base(layout: DatasetLayout, expected: str | None) -> Snapshot | None:
    """The snapshot in force, which must be `expected`; `PublishError` if another was published since."""
    in_force = snapshot_in_force(layout)
    name = in_force.version if in_force else None
    if name != expected:
        raise PublishError(f"the run was planned over version {expected}, but {name} is in force; plan again")
    return in_force


def _build_pools(layout: DatasetLayout, run: RunLayout, content: Content, files: list[SnapshotFile]) -> str:
    """The datastore of the new version; what drafters learned comes from the run, else from the base."""
    learned = read_calibration(run.calibration)
    before = content.base.datastore_version if content.base else None
    if learned is None and before is not None:
        learned = read_calibration(layout.datastore / before / CALIBRATION)
    return build_snapshot_pools(layout, run.root.name, files, read_facts(run).model, learned)


def _snapshot(
    run: RunLayout, content: Content, files: list[SnapshotFile], validation: Validation, datastore: str
) -> Snapshot:
    facts, base = read_facts(run), content.base
    return Snapshot(
        version=run.root.name,
        run_id=run.root.name,
        previous_version=base.version if base else None,
        datastore_version=datastore,
        created_at=datetime.now(UTC),
        fingerprint=facts.text_fingerprint,
        history_cutoff=validation.history_cutoff,
        sec_per_token=content.sec_per_token(facts.decode_time.sec_per_token),
        counts=validation.counts,
        validation=validation.as_dict(),
        files=files,
    )


def _reject_superseded(layout: DatasetLayout, snapshot: Snapshot) -> None:
    """A complete version that was replaced or left since is put in force by a rollback, not in passing."""
    in_force = snapshot_in_force(layout)
    name = in_force.version if in_force else None
    is_next = name in (snapshot.version, snapshot.previous_version)
    if not is_next or (name != snapshot.version and was_left(layout, snapshot.version)):
        raise PublishError(
            f"version {snapshot.version} was published before, and {name} is in force; "
            f"python -m jobs.publish rollback version={snapshot.version} returns to it"
        )
