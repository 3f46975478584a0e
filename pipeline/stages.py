"""What a job is doing now, and for how long: no step that may take long is silent.

    with stage("reading ratings.csv"):
        ...

A job shows its stages (`stages_shown`): on a terminal as a line with a running clock, in whose place the
time that it took stays; elsewhere as a logged line when the stage begins, and another one every
`PLAIN_INTERVAL_SEC` while it lasts. Where nobody shows them, as in a program that uses the pipeline as a
library, a stage is one logged line.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

logger = logging.getLogger(__name__)

PLAIN_INTERVAL_SEC = 30.0
WORTH_A_TIME_SEC = 1.0  # of what took less, a terminal does not show how long it took
Say = Callable[[str], None]


@cache
def messages() -> Console:
    """The console of everything that is no result: standard error.

    There is one, because two live displays on one terminal must know of each other.
    """
    return Console(stderr=True)


_console: ContextVar[Console | None] = ContextVar("console_of_stages", default=None)


@contextmanager
def stages_shown(console: Console) -> Iterator[None]:
    """Show the stages of the block, in this thread, on `console`."""
    token = _console.set(console)
    try:
        yield
    finally:
        _console.reset(token)


@contextmanager
def stage(what: str, is_short: bool = False) -> Iterator[Say]:
    """The block does `what`, such as "reading ratings.csv".

    What is given to the function that is yielded is shown in place of `what` from then on. `is_short`: the
    block is usually over in a moment, so that `what` is told only while somebody waits for it.
    """
    console = _console.get()
    if console is not None and console.is_terminal:
        with _on_terminal(console, what, is_short) as say:
            yield say
        return
    if not is_short:
        logger.info("%s", what)
    if console is None:
        yield lambda now: None
        return
    with _reminded(what) as say:
        yield say


@contextmanager
def _on_terminal(console: Console, what: str, is_short: bool) -> Iterator[Say]:
    clock = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        refresh_per_second=4,
    )
    task = clock.add_task(what, total=None)
    started = time.monotonic()
    with clock:
        yield lambda now: clock.update(task, description=now)
    if not is_short:
        seconds = time.monotonic() - started
        took = f" ({duration(seconds)})" if seconds >= WORTH_A_TIME_SEC else ""
        console.print(f"{what}{took}", markup=False, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def _reminded(what: str) -> Iterator[Say]:
    """Log every `PLAIN_INTERVAL_SEC` what is being done."""
    state = [what]
    is_over = threading.Event()

    def remind() -> None:
        started = time.monotonic()
        while not is_over.wait(PLAIN_INTERVAL_SEC):
            logger.info("%s (%s)", state[0], duration(time.monotonic() - started))

    thread = threading.Thread(target=remind, name="stage", daemon=True)
    thread.start()
    try:
        yield lambda now: state.__setitem__(0, now)
    finally:
        is_over.set()
        thread.join()


class MessageHandler(logging.Handler):
    """Prints log messages on `messages()`: above a live display, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print `record` as a line."""
        try:
            text = self.format(record)
            messages().print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        except Exception:  # noqa: BLE001  as every handler of logging does
            self.handleError(record)


def duration(seconds: float | None) -> str:
    """`seconds` as `1:02:03` or `2:03`; `-` if unknown."""
    if seconds is None:
        return "-"
    minutes, sec = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{sec:02}" if hours else f"{minutes}:{sec:02}"
