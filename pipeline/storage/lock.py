"""One process at a time works on a run."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import GenerationError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; raise `GenerationError` if another process holds it.

    The kernel frees it when the process ends, however it ends. A file system without locks is used
    without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GenerationError(f"{folder}: another process is generating this run") from error
        except OSError:  # no locks on this file system
            pass
        yield
