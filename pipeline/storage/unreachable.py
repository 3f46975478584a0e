"""An object store that does not answer, or refuses: one line, whatever its client raises.

Each client raises classes of its own, most of which are no `OSError`; none of the packages need be installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StorageError

CLIENTS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure", "fsspec"}


@contextmanager
def naming_unreachable_store(data: Path | str) -> Iterator[None]:
    """Turn what a store's client raises in the block into a `StorageError` of one line that names `data`."""
    try:
        yield
    except Exception as error:
        found = _of_client(error) if "://" in str(data) else None
        if found is None:
            raise
        reason = " ".join(str(found).split()) or type(found).__name__
        raise StorageError(
            f"{data}: the object store does not answer, or refuses: {reason}; what is finished is kept"
        ) from error


def _of_client(error: BaseException | None) -> BaseException | None:
    """`error` or what it was raised from, if a client's own class; s3fs makes an `OSError` of some."""
    while error is not None:
        packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if packages & CLIENTS:
            return error
        error = error.__cause__
    return None
