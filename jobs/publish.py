"""`python -m jobs.publish`: publish one run, return to an earlier version, or list them; `make publish`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.cli import entry_point
from pipeline.errors import ConfigError, PipelineError, PublishError
from pipeline.printable import plural

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.publish.content import Content
    from pipeline.publish.snapshot import Snapshot
    from pipeline.settings import RunSettings
    from pipeline.storage.layout import DatasetLayout, RunLayout
    from pipeline.storage.lock import OwnedLock


ACTIONS = ("publish", "validate", "rollback", "list")


@entry_point(
    "publish",
    "Publish a finished run (run_id=...), `validate` it only, `rollback` to an earlier version, or `list`.",
    config_name="nightly",
    examples=[
        "run_id=2026-11-22",
        "validate run_id=2026-11-22",
        "rollback",
        "rollback version=2026-11-20",
        "list",
    ],
)
def job(settings: RunSettings) -> None:
    """Do what `publish.action` says, and say what is in force."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from rich.console import Console

        from pipeline.publish.versions import rollback
        from pipeline.storage.layout import DatasetLayout
        from pipeline.storage.lock import owned

    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    out = Console()
    action = settings.publish.action
    if action == "list":
        _print_versions(layout, out)
        return
    with owned(layout.lock, f"{action} {settings.publish.version or settings.run_id or ''}".strip()) as lock:
        if action == "rollback":
            _print_in_force(rollback(layout, settings.publish.version, lock.require_held), out)
            _print_stale_embeddings(layout, out)
        elif settings.run_id is None:
            raise ConfigError("run_id: missing; name the run to publish")
        else:
            _publish(settings, layout, layout.run(settings.run_id), lock, out)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: one bare word is the action, `version=` is short for `publish.version=`."""
    words = sys.argv[1:] if argv is None else list(argv)
    return job([_as_override(word) for word in words])


def _as_override(word: str) -> str:
    if word in ACTIONS:
        return f"publish.action={word}"
    return f"publish.{word}" if word.startswith("version=") else word


def _publish(
    settings: RunSettings, layout: DatasetLayout, run: RunLayout, lock: OwnedLock, out: Console
) -> None:
    from pipeline.publish.content import content_of_run
    from pipeline.publish.release import publish_run
    from pipeline.publish.snapshot import SUCCESS
    from pipeline.publish.versions import prune_if_possible

    if (layout.snapshot(run.root.name) / SUCCESS).exists() and _was_done(settings, layout, run, lock, out):
        return
    content = content_of_run(layout, run, _base(layout, run))
    if settings.publish.action == "validate":
        _validate(settings, layout, run, content, lock, out)
        return
    snapshot = publish_run(layout, run, settings, content, _untimed, lock.require_held)
    removed = prune_if_possible(layout, settings.publish.keep_versions, lock.require_held)
    _print_in_force(snapshot, out)
    if removed:
        out.print(f"removed old versions: {', '.join(removed)}", highlight=False)


def _was_done(
    settings: RunSettings, layout: DatasetLayout, run: RunLayout, lock: OwnedLock, out: Console
) -> bool:
    """Whether nothing is left to do for the complete version of `run`: the command is given a second time.

    Damaged pools of the current version are repaired. To a version that was current before, only a rollback
    returns. One that never was current is published, or refused, like any other.
    """
    from pipeline.publish.mending import mend_pools
    from pipeline.publish.snapshot import read_snapshot, snapshot_in_force

    version, current = run.root.name, snapshot_in_force(layout)
    if settings.publish.action == "validate":
        counts = read_snapshot(layout, version).counts
        out.print(f"{version} was found valid before: {counts}; it is complete", highlight=False)
        return True
    if current is not None and version == current.version:
        _print_in_force(mend_pools(layout, current, lock.require_held), out)
        return True
    if current is None or not _was_current(layout, version, current):
        return False
    out.print(
        f"{version} was published before; nothing is left to do. To return to it: "
        f"python -m jobs.publish rollback version={version}",
        highlight=False,
        soft_wrap=True,
    )
    _print_in_force(current, out)
    return True


def _was_current(layout: DatasetLayout, version: str, current: Snapshot) -> bool:
    """Whether `version` was current before `current`: a rollback left it, or `current` was made from it."""
    from pipeline.publish.snapshot import read_snapshot, versions, was_left

    known = versions(layout)
    while current.previous_version is not None and current.previous_version in known:
        current = read_snapshot(layout, current.previous_version)
        if current.version == version:
            return True
    return was_left(layout, version)


def _validate(
    settings: RunSettings,
    layout: DatasetLayout,
    run: RunLayout,
    content: Content,
    lock: OwnedLock,
    out: Console,
) -> None:
    from pipeline.publish.release import write_and_validate

    version = run.root.name
    _, validation = write_and_validate(layout, run, settings, content, _untimed, lock.require_held)
    out.print(f"{version} is valid: {validation.counts}; nothing was put in force", highlight=False)


def _base(layout: DatasetLayout, run: RunLayout) -> Snapshot | None:
    """The snapshot to go from. A night's changes hold over the one that it was planned over only.

    Raises `PublishError` for a night that stopped before it had a plan.
    """
    from pipeline.night.record import is_finished, read_record
    from pipeline.publish.release import require_base
    from pipeline.publish.snapshot import SUCCESS, read_snapshot, snapshot_in_force, versions

    version = run.root.name
    if (layout.snapshot(version) / SUCCESS).exists():
        previous = read_snapshot(layout, version).previous_version
        return read_snapshot(layout, previous) if previous in versions(layout) else None
    night = read_record(run.night)
    if night is None:
        return snapshot_in_force(layout)
    if "previous_version" not in night or not run.plan.exists():
        hint = (
            "nothing had changed" if is_finished(night) else "the same python -m jobs.nightly goes on with it"
        )
        raise PublishError(f"run {version} has no plan yet: {hint}")
    return require_base(layout, night["previous_version"])


@contextmanager
def _untimed(name: str) -> Iterator[None]:
    yield


def _print_in_force(snapshot: Snapshot, out: Console) -> None:
    counts = ", ".join(plural(number, kind) for kind, number in snapshot.counts.items())
    out.print(
        f"in force: {snapshot.version} ({counts}), pools {snapshot.datastore_version}",
        highlight=False,
        soft_wrap=True,
    )


def _print_stale_embeddings(layout: DatasetLayout, out: Console) -> None:
    """The texts are rolled back whatever became of the embeddings."""
    from pipeline.encode.versions import encoded_other_texts

    try:
        note = encoded_other_texts(layout)
    except PipelineError as error:
        note = f"embeddings: {error}"
    if note:
        out.print(note, highlight=False, soft_wrap=True)


def _print_versions(layout: DatasetLayout, out: Console) -> None:
    from rich import box
    from rich.table import Table

    from pipeline.publish.snapshot import name_in_force, snapshots, was_left

    in_force, known = name_in_force(layout), snapshots(layout)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("version", "users", "items", "pools", "published", ""):
        table.add_column(name)
    for snapshot in known:
        is_current = snapshot.version == in_force
        was_rolled_back = not is_current and was_left(layout, snapshot.version)
        table.add_row(
            snapshot.version,
            f"{snapshot.counts['user']:,}",
            f"{snapshot.counts['item']:,}",
            snapshot.datastore_version or "-",
            f"{snapshot.created_at:%Y-%m-%d %H:%M}",
            "in force" if is_current else "rolled back" if was_rolled_back else "",
        )
    if in_force is not None and in_force not in [snapshot.version for snapshot in known]:
        table.add_row(in_force, "unreadable", "", "", "", "in force")
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
