"""Pools that were damaged after they were published: built again from the rows of their snapshot."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from drafters.datastore.format import CALIBRATION
from pipeline.errors import CorruptPartError, DataError
from pipeline.pools import build_snapshot_pools, read_calibration, verify_pools
from pipeline.publish.content import read_facts
from pipeline.publish.snapshot import SUCCESS, Snapshot, snapshot_in_force, verify_files
from pipeline.storage.files import remove_folder, write_json
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.pool_copies import has_pools

logger = logging.getLogger(__name__)


def mend_pools_in_force(layout: DatasetLayout, require_lock: Callable[[], None] = lambda: None) -> None:
    """`mend_pools` of the snapshot in force, if there is one."""
    snapshot = snapshot_in_force(layout)
    if snapshot is not None:
        mend_pools(layout, snapshot, require_lock)


def mend_pools(
    layout: DatasetLayout, snapshot: Snapshot, require_lock: Callable[[], None] = lambda: None
) -> Snapshot:
    """`snapshot` with whole pools: damaged ones are built again.

    They have another name, which `_SUCCESS` is made to say, if what drafters had learned was lost with them.
    Raises `CorruptPartError` if the files of the snapshot, or what is known of its model, are damaged too.
    """
    version = snapshot.datastore_version
    if version is None:
        return snapshot
    try:
        verify_pools(layout, version)
    except CorruptPartError as error:
        logger.warning("the pools of version %s are built again: %s", snapshot.version, error)
    else:
        return snapshot
    name = _build_again(layout, snapshot, version, require_lock)
    if name != version:
        snapshot = snapshot.model_copy(update={"datastore_version": name})
        require_lock()
        write_json(snapshot.model_dump(mode="json"), layout.snapshot(snapshot.version) / SUCCESS)
    return snapshot


def _build_again(
    layout: DatasetLayout, snapshot: Snapshot, version: str, require_lock: Callable[[], None]
) -> str:
    run, folder = layout.run(snapshot.run_id), layout.datastore / version
    verify_files(layout, snapshot.version, snapshot.files)
    try:
        model = read_facts(run).model
    except DataError as error:
        raise CorruptPartError(
            f"{folder}: damaged, and not to be built again without the run's manifest: {error}; "
            "python -m jobs.publish rollback returns to the version before"
        ) from error
    learned = _learned(run.calibration, folder / CALIBRATION)
    require_lock()
    if not has_pools(folder):
        remove_folder(folder)
    return build_snapshot_pools(layout, snapshot.version, snapshot.files, model, learned)


def _learned(*paths: Path) -> dict[str, Any] | None:
    """What drafters learned, from the first of `paths` that can be read."""
    for path in paths:
        with suppress(CorruptPartError):
            learned = read_calibration(path)
            if learned is not None:
                return learned
    return None
