"""Space that a night gives up when the disk is full, so that its record, metrics and report still tell it.

Without it `night.json` would say `running` for ever, and `metrics.prom` that last night was a success.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pipeline.errors import StorageError
from pipeline.storage.files import replaced_atomically
from pipeline.storage.location import is_remote

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
RESERVE_BYTES = 2 * 1024 * 1024  # a report with its pictures, twice


def keep_reserve(reserve: Path) -> None:
    """Fill the file `reserve`, unless it is there or the disk is full already. A store needs none."""
    if is_remote(reserve) or reserve.exists():
        return
    with suppress(StorageError, OSError), replaced_atomically(reserve) as temporary:
        temporary.write_bytes(os.urandom(RESERVE_BYTES))  # a file system may make holes of zeros


def with_reserve(reserve: Path, write: Callable[[], Result]) -> Result:
    """The result of `write`; if there is no space for it, give up the reserve and call it again."""
    try:
        return write()
    except (StorageError, OSError):
        if is_remote(reserve) or not reserve.exists():
            raise
        reserve.unlink()
        return write()
