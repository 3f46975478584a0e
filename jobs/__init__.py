"""Entry points: `python -m jobs.X`. The only place that reads the configuration, prints and exits."""

import sys
from types import TracebackType

from pipeline.environment import silence_telemetry


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Ctrl-C while libraries are still being imported, before `jobs.cli` can catch it: one line."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


silence_telemetry()  # here, because libraries that a job imports read these variables at import
sys.excepthook = _hook
