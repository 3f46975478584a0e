"""The run log: one file that takes what vLLM and Ray have to say, so that the terminal stays readable."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def redirect_output(path: str | Path) -> None:
    """Send this process's standard output and error, native code's included, to the end of `path`.

    Meant for worker processes; it cannot be undone.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


@contextlib.contextmanager
def ray_output_in(path: Path) -> Iterator[None]:
    """Keep what Ray writes in the driver off the terminal while the block runs.

    Ray logs through the logger `ray`, and prints a worker's death on `sys.stdout` whatever its log
    options say; both go to the end of `path`. Progress therefore belongs on standard error. What a full
    disk does not take is lost: a log must not end the run, nor hide why it ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _appended(path) as log, contextlib.redirect_stdout(log):
        handler = _SilentHandler(log)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger = logging.getLogger("ray")
        before = logger.handlers, logger.propagate
        logger.handlers, logger.propagate = [handler], False
        try:
            yield
        finally:
            logger.handlers, logger.propagate = before


class _SilentHandler(logging.StreamHandler[TextIO]):
    """Prints no traceback for a line that cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  a name of logging
        pass


@contextlib.contextmanager
def _appended(path: Path) -> Iterator[TextIO]:
    log = path.open("a", encoding="utf-8", buffering=1)
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            log.close()
