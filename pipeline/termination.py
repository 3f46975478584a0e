"""SIGTERM ends a job in order, as an interrupt does: what is open is closed, the reason written down."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

from pipeline.errors import Terminated


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM; a second one does not disturb the end of the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Undo that the block sets a handler of its own, as `ray.init` does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def wait_for_end(pids: Iterable[int], timeout_sec: float) -> None:
    """Return when none of these processes of this machine runs any more, or after `timeout_sec`."""
    waiting, deadline = list(pids), time.monotonic() + timeout_sec
    while any(map(psutil.pid_exists, waiting)) and time.monotonic() < deadline:
        time.sleep(0.01)
