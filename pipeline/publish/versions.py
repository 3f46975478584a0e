"""Published versions over time: the way back to an earlier one, and the removal of old ones."""

import logging
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import DataError
from pipeline.pools import verify_pools
from pipeline.publish.snapshot import (
    SUCCESS,
    Snapshot,
    put_in_force,
    read_snapshot,
    snapshot_in_force,
    verify_files,
    versions,
)
from pipeline.storage.files import remove_folder
from pipeline.storage.layout import DatasetLayout

logger = logging.getLogger(__name__)


def rollback(layout: DatasetLayout, version: str | None) -> Snapshot:
    """Put an earlier version, and its datastore, in force: `version`, or the one before that in force.

    Both are checked against their checksums first. Raises `DataError` if there is none to return to.
    """
    in_force = snapshot_in_force(layout)
    if version is None:
        version = _version_before(layout, in_force)
    target = read_snapshot(layout, version)
    verify_files(layout, version, target.files)
    if target.datastore_version is not None:
        verify_pools(layout, target.datastore_version)
    put_in_force(layout, version)
    logger.info("in force: %s, was %s", version, in_force.version if in_force else "none")
    return target


def _version_before(layout: DatasetLayout, in_force: Snapshot | None) -> str:
    known = versions(layout)
    if in_force is None:
        raise DataError(f"{layout.knowledge}: nothing is published, there is nothing to return to")
    if in_force.previous_version in known:
        return str(in_force.previous_version)
    older = known[: known.index(in_force.version)]
    if not older:
        raise DataError(f"{layout.knowledge}: {in_force.version} is the oldest version there is")
    return older[-1]


def prune(layout: DatasetLayout, keep_versions: int) -> list[str]:
    """Remove all but the newest `keep_versions` snapshots, never the one in force; the removed names.

    Their datastores go with them, and so does what stopped half-way before the oldest version that stays.
    """
    known = [read_snapshot(layout, version) for version in versions(layout)]
    in_force = snapshot_in_force(layout)
    if in_force is None:
        return []
    surplus = [snapshot for snapshot in known[:-keep_versions] if snapshot.version != in_force.version]
    kept = [snapshot for snapshot in known if snapshot not in surplus]
    stores = {snapshot.datastore_version for snapshot in kept}
    for snapshot in surplus:
        (layout.snapshot(snapshot.version) / SUCCESS).unlink()  # from here on it is no version any more
        remove_folder(layout.snapshot(snapshot.version))
        if snapshot.datastore_version is not None and snapshot.datastore_version not in stores:
            remove_folder(layout.datastore / snapshot.datastore_version)
    if len(kept) >= keep_versions:
        _remove_leftovers(layout, kept)
    return [snapshot.version for snapshot in surplus]


def _remove_leftovers(layout: DatasetLayout, kept: list[Snapshot]) -> None:
    """Remove what stopped half-way, and pools of plain runs, from before the oldest version that stays."""
    oldest = min(snapshot.created_at for snapshot in kept)
    names = {snapshot.version for snapshot in kept} | {snapshot.datastore_version for snapshot in kept}
    for parent in (layout.knowledge, layout.datastore):
        for folder in [path for path in parent.iterdir() if path.is_dir() and path.name not in names]:
            if _is_older(folder, oldest):
                remove_folder(folder)


def _is_older(folder: Path, moment: datetime) -> bool:
    """Whether all files in `folder` were written before `moment`."""
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    return datetime.fromtimestamp(max(times, default=0.0), UTC) < moment
