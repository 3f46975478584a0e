"""The time series of a run, `progress.jsonl`: one line every few seconds, kept through kills and resumes.

A line is what `record` makes of a `ProgressSnapshot`. Counts run from the beginning of their session, that
is of one start of the driver; `session` tells sessions apart. Lines are appended with one write each; half
a line that a killed driver left is closed off and skipped by readers.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.generate.progress import Clock, ProgressSnapshot

logger = logging.getLogger(__name__)
INTERVAL_SEC = 10.0


class TimeSeries:
    """Appends snapshots to `path`, one for each `interval_sec`, and the last one when it is closed.

    Losing the series must not lose the night: a file that cannot be written ends it with a warning.
    """

    def __init__(
        self,
        path: Path,
        interval_sec: float = INTERVAL_SEC,
        clock: Clock = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._interval_sec = interval_sec
        self._clock = clock
        self._now = now
        self._session = uuid.uuid4().hex[:8]
        self._written_at: float | None = None
        self._unwritten: ProgressSnapshot | None = None
        self._is_broken = False

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Append `snapshot` if it is time; may be called often."""
        self._unwritten = snapshot
        if self._written_at is None or self._clock() - self._written_at >= self._interval_sec:
            self._append(snapshot)

    def close(self) -> None:
        """Append the last snapshot if it is not there yet."""
        if self._unwritten is not None:
            self._append(self._unwritten)

    def _append(self, snapshot: ProgressSnapshot) -> None:
        line = json.dumps(record(snapshot, self._session, self._now())) + "\n"
        self._unwritten, self._written_at = None, self._clock()
        if self._is_broken:
            return
        try:
            append_line(self._path, line)
        except OSError as error:
            self._is_broken = True
            logger.warning("%s: %s; the report will lack its curves", self._path, error.strerror)


def record(snapshot: ProgressSnapshot, session: str, moment: datetime) -> dict[str, Any]:
    """One line of the series: when, how far, and the session's totals."""
    return {
        "time": moment.isoformat(timespec="milliseconds"),
        "session": session,
        "elapsed_sec": round(snapshot.elapsed_sec, 3),
        "decode_sec": round(snapshot.decode_sec, 3),
        "num_rows_total": snapshot.num_rows_total,
        "num_rows_done": snapshot.num_rows_done,
        "num_rows_failed": snapshot.num_rows_failed,
        "num_workers": snapshot.num_workers_ready,
        **asdict(snapshot.totals),
    }


def append_line(path: Path, line: str) -> None:
    """Append `line` with a single write; one that was torn off before is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, (("\n" if is_torn else "") + line).encode())
    finally:
        os.close(file)


def read_series(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a series, oldest first; half lines are passed over. Nothing if there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value
    except FileNotFoundError:
        return
