"""SIGTERM ends a job in order, as an interrupt does: what is open is closed, the reason written down."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
