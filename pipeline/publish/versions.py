"""Published versions over time: the way back to an earlier one, and the removal of old ones."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import CorruptPartError, DataError, PipelineError, PublishError
from pipeline.pools import verify_pools
from pipeline.publish.snapshot import (
    LEFT,
    SUCCESS,
    Snapshot,
    clear_left,
    name_in_force,
    put_in_force,
    read_snapshot,
    snapshot_in_force,
    snapshots,
    verify_files,
    versions,
    was_left,
)
from pipeline.storage.files import remove_folder, write_text
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.unreachable import naming_unreachable_store

logger = logging.getLogger(__name__)


def rollback(
    layout: DatasetLayout, version: str | None, require_lock: Callable[[], None] = lambda: None
) -> Snapshot:
    """Put an earlier version, and its datastore, in force: `version`, or the one before that in force.

    Of the one in force only the name is needed: it may be what is damaged.
    Both are checked against their checksums first. Younger versions are marked as left, so that no later
    rollback returns to one of them unless it is named. Raises `DataError` if there is none to return to.
    """
    if version is None:
        version = _version_before_that_in_force(layout)
    target = read_snapshot(layout, version)
    verify_files(layout, version, target.files)
    if target.datastore_version is not None:
        verify_pools(layout, target.datastore_version)
    before, known = name_in_force(layout), snapshots(layout)
    left = [snapshot.version for snapshot in known if snapshot.created_at > target.created_at]
    if before is not None and before not in [snapshot.version for snapshot in known]:
        left.append(before)
    require_lock()
    put_in_force(layout, version)
    # Marked afterwards: a mark on what stays in force would hide a good version from the next rollback.
    clear_left(layout, version)
    for name in left:
        if layout.snapshot(name).exists():
            write_text("", layout.snapshot(name) / LEFT)
    logger.info("in force: %s", version)
    return target


def _version_before_that_in_force(layout: DatasetLayout) -> str:
    name = name_in_force(layout)
    if name is None:
        raise DataError(f"{layout.knowledge}: nothing is published, there is nothing to return to")
    try:
        before = _version_before(layout, read_snapshot(layout, name))
    except (CorruptPartError, DataError) as error:
        logger.warning("the version in force is left unread: %s", error)
        others = [version for version in versions(layout) if not was_left(layout, version)]
        before = others[-1] if others else None
    if before is None:
        raise DataError(f"{layout.knowledge}: {name} is the oldest version to return to")
    return before


def _version_before(layout: DatasetLayout, in_force: Snapshot) -> str | None:
    """What `in_force` was made from, else the youngest older version; none that a rollback left."""
    older = [
        snapshot.version
        for snapshot in snapshots(layout)
        if snapshot.created_at < in_force.created_at and not was_left(layout, snapshot.version)
    ]
    if in_force.previous_version in older:
        return in_force.previous_version
    return older[-1] if older else None


def prune_if_possible(
    layout: DatasetLayout, keep_versions: int, require_lock: Callable[[], None] = lambda: None
) -> list[str]:
    """`prune` after a publication: what keeps it from its work is a warning, the new version is in force."""
    try:
        with naming_unreachable_store(layout.root):
            return prune(layout, keep_versions, require_lock)
    except (PipelineError, OSError) as error:
        logger.warning("old versions were not removed: %s", error)
        return []


def prune(
    layout: DatasetLayout, keep_versions: int, require_lock: Callable[[], None] = lambda: None
) -> list[str]:
    """Remove all but the newest `keep_versions` snapshots; the removed names.

    The one in force and the one that a rollback would return to stay in any case. With the others go their
    datastores, the parts, plans and changes of the runs that wrote them (their records and reports stay), and
    what stopped half-way before the oldest version that stays. `require_lock` raises if this process has
    lost the dataset's lock: another one may have put any of them in force since.
    """
    known = snapshots(layout)
    in_force = snapshot_in_force(layout)
    if in_force is None:
        return []
    needed = (in_force.version, _version_before(layout, in_force))
    surplus = [snapshot for snapshot in known[:-keep_versions] if snapshot.version not in needed]
    kept = [snapshot for snapshot in known if snapshot not in surplus]
    stores = {snapshot.datastore_version for snapshot in kept}
    for snapshot in surplus:
        require_lock()
        _remove_version(layout, snapshot, keeps_pools=snapshot.datastore_version in stores)
    if len(kept) >= keep_versions:
        require_lock()
        _remove_leftovers(layout, kept)
    return [snapshot.version for snapshot in surplus]


def _remove_version(layout: DatasetLayout, snapshot: Snapshot, keeps_pools: bool) -> None:
    if name_in_force(layout) == snapshot.version:
        raise PublishError(f"version {snapshot.version} is in force by now")
    run = layout.run(snapshot.run_id)
    remove_folder(run.parts)
    for path in (run.plan, run.changes):
        path.unlink(missing_ok=True)
    # From here on it is no version any more, and no later pruning finds its run.
    (layout.snapshot(snapshot.version) / SUCCESS).unlink()
    remove_folder(layout.snapshot(snapshot.version))
    if snapshot.datastore_version is not None and not keeps_pools:
        remove_folder(layout.datastore / snapshot.datastore_version)


def _remove_leftovers(layout: DatasetLayout, kept: list[Snapshot]) -> None:
    """Remove what stopped half-way, and pools of plain runs, from before the oldest version that stays."""
    oldest = min(snapshot.created_at for snapshot in kept)
    names = {snapshot.version for snapshot in kept} | {snapshot.datastore_version for snapshot in kept}
    for parent in (layout.knowledge, layout.datastore):
        for folder in [path for path in parent.iterdir() if path.is_dir() and path.name not in names]:
            if not (folder / SUCCESS).exists() and _is_older(folder, oldest):
                remove_folder(folder)


def _is_older(folder: Path, moment: datetime) -> bool:
    """Whether all files in `folder` were written before `moment`."""
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    return datetime.fromtimestamp(max(times, default=0.0), UTC) < moment
