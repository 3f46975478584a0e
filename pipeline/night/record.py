"""`night.json`: what the night did so far, rewritten at the end of every step.

It is there from the beginning. As long as no plan says what the night is about it has no `identity`; a night
that ends before that leaves its folder to the next one.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import BusyError, CorruptPartError, StorageError
from pipeline.publish.snapshot import was_left
from pipeline.storage.files import read_json, remove_folder, write_json
from pipeline.storage.layout import DatasetLayout, RunLayout

logger = logging.getLogger(__name__)
DONE = "done"
RUNNING = "running"
FAILED = "failed"
STOPPED = "stopped"
LAST_STEP = "report"


class NightStopped(Exception):  # noqa: N818  not an error: the night was asked to stop here
    """The step after which the night was to stop is done."""


@dataclass
class NightRecord:
    """The content of `night.json`.

    `require_lock` raises `BusyError` if this process has lost the dataset's lock: the file tells of another
    process's work by then, and is left alone.
    """

    dataset: str
    stop_after: str | None = None
    require_lock: Callable[[], None] = lambda: None
    values: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    _run: RunLayout | None = None

    @property
    def run_id(self) -> str | None:
        """The night's run; None as long as it has no file."""
        return self.values.get("run_id")

    def has_failed_at(self, step: str) -> bool:
        """Whether `step` is where the night failed."""
        return self.steps.get(step, {}).get("status") == FAILED

    def begin(self, run: RunLayout, **values: Any) -> None:
        """The night is told in `run`, until its plan says which night it is. `values` are put down."""
        self._open(run, values)

    def bind(self, run: RunLayout, identity: str, previous_version: str | None) -> None:
        """The night is that of `run`. Steps and figures of an earlier session are kept where not redone."""
        provisional = self._run
        self._open(run, {"identity": identity, "previous_version": previous_version})
        if provisional is not None and provisional.root != run.root:
            remove_folder(provisional.root)

    def _open(self, run: RunLayout, values: dict[str, Any]) -> None:
        earlier = read_record(run.night) or {}
        if earlier.get("identity") is None:
            earlier = {}
        self._run = run
        self.steps = {step["name"]: step for step in earlier.get("steps", [])} | self.steps
        self.values = self.values | earlier | values
        self.values |= {"run_id": run.root.name, "dataset": self.dataset}
        self.values.setdefault("started_at", _now())
        self.set(status=RUNNING, ended_at=None, error=None)

    def set(self, **values: Any) -> None:
        """Put `values` down, and write the file."""
        self.values |= values
        if self._run is not None:
            self.require_lock()
            write_json(self.values | {"steps": list(self.steps.values())}, self._run.night)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step. Raises `NightStopped` after the one that the night was to stop after."""
        started = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._note(name, started, FAILED, _reason(error))
            # Neither a full disk nor a lost lock must hide why the night failed.
            with suppress(OSError, StorageError, BusyError):
                self.set(status=FAILED, ended_at=_now(), error=f"{name}: {_reason(error)}")
            raise
        self._note(name, started, DONE)
        self.set()
        if name == self.stop_after:
            self.set(status=STOPPED, ended_at=_now())
            raise NightStopped(name)

    def skip(self, *names: str) -> None:
        """Note steps that this night does not need."""
        for name in names:
            self.steps[name] = {"name": name, "seconds": 0.0, "status": "skipped"}
        self.set()

    def finish(self) -> None:
        """The night is done."""
        self.set(status=DONE, ended_at=_now(), error=None)

    def fail(self, error: BaseException) -> None:
        """The night failed; the reason of a step that failed is not replaced.

        Raises what writing raises: of a step that failed for want of space nothing may be written yet.
        """
        failed = {"status": FAILED, "ended_at": _now(), "error": _reason(error)}
        self.set(**failed if self.values.get("status") != FAILED else {})

    def _note(self, name: str, started: float, status: str, reason: str | None = None) -> None:
        step = {"name": name, "seconds": round(time.monotonic() - started, 3), "status": status}
        self.steps.pop(name, None)  # steps stand in the order in which they ended
        self.steps[name] = step | ({"error": reason} if reason else {})


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of a `night.json`; None if there is none. Raises `CorruptPartError` if it is no JSON."""
    return read_json(path)


def unfinished_night(layout: DatasetLayout, identity: str) -> str | None:
    """Run id of the night with this `identity` that stopped before its end; the youngest of several."""
    found = [
        (str(content.get("started_at")), run_id)
        for run_id, content in unfinished_nights(layout)
        if content.get("identity") == identity
    ]
    return max(found)[1] if found else None


def unfinished_nights(layout: DatasetLayout) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run id, content of `night.json`) of the nights that can go on, see `unfinished_record`."""
    for path in layout.runs.glob("*/night.json"):
        content = unfinished_record(layout, path.parent.name)
        if content is not None:
            yield path.parent.name, content


def unfinished_record(layout: DatasetLayout, run_id: str) -> dict[str, Any] | None:
    """The `night.json` of a night that stopped before its end and can go on; None of any other run.

    One whose version a rollback left cannot; an unreadable one is passed over with a warning.
    """
    try:
        content = read_record(layout.run(run_id).night)
    except CorruptPartError as error:
        logger.warning("a night is passed over: %s", error)
        return None
    if content is None or is_finished(content) or was_left(layout, run_id):
        return None
    return content


def is_finished(content: dict[str, Any]) -> bool:
    """Whether a `night.json` is that of a night that came to its end, its report included."""
    steps = {step["name"]: step["status"] for step in content.get("steps", [])}
    return content.get("status") == DONE and steps.get(LAST_STEP) == DONE


def free_run_id(layout: DatasetLayout, day: str) -> str:
    """`day`, or with a number behind it the first that is not used yet.

    A night that ended before its plan has used none.
    """
    number, name = 1, day
    while _is_used(layout.run(name)) or layout.snapshot(name).exists():
        number += 1
        name = f"{day}-{number}"
    return name


def _is_used(run: RunLayout) -> bool:
    try:
        content = read_record(run.night)
    except CorruptPartError:
        return True
    if content is None:
        return run.root.exists()
    return content.get("identity") is not None or is_finished(content)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
