"""Where data lies: a local folder, or an object store below an fsspec URI such as `s3://bucket/prefix`.

Both are paths of the same interface: `pathlib.Path`, and `UPath` of universal_pathlib for the rest. What
pyarrow shall read goes through the functions here, which hand it the right file system.

Credentials and endpoints come from where the store's own tools look for them, for example `AWS_ENDPOINT_URL`,
`AWS_PROFILE` or the role of the machine.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

CACHE_VARIABLE = "LASER_CACHE_DIR"


def data_path(location: str | Path) -> Path:
    """The path at `location`: a local path, `file://…`, or the URI of any store that fsspec knows."""
    text = str(location)
    if "://" not in text:
        return Path(location)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    from upath import UPath

    # Other processes write beside this one: a cached listing would hide what they finish.
    return cast(Path, UPath(text, use_listings_cache=False))


def missing_store(location: str) -> str | None:
    """Why the URI `location` cannot be used here, in a few words; None if it can, or is a local path."""
    protocol, separator, place = location.partition("://")
    if not separator or protocol == "file":
        return None
    if not place.strip("/"):
        return "names no bucket or folder"
    import fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def is_remote(path: Path) -> bool:
    """Whether `path` lies in an object store: no renames, no appending, no locks, no memory mapping."""
    return not isinstance(path, os.PathLike)


def cache_folder() -> Path:
    """This machine's folder for copies of what lies in an object store ($LASER_CACHE_DIR)."""
    given = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "laser-knowledge"


def cached_at(path: Path) -> Path:
    """Where this machine keeps its copy of remote `path`."""
    place = hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
    return cache_folder() / place / path.name


def read_table(path: Path, **options: Any) -> pa.Table:
    """`pyarrow.parquet.read_table` of one file; an error is an `OSError` or `pa.ArrowException`."""
    place, filesystem = _for_arrow(path)
    return pq.read_table(place, filesystem=filesystem, partitioning=None, **options)


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """`pyarrow.parquet.ParquetFile` of one file."""
    place, filesystem = _for_arrow(path)
    return pq.ParquetFile(place, filesystem=filesystem, **options)


def parquet_dataset(paths: Sequence[Path], schema: pa.Schema) -> ds.Dataset:
    """The rows of `paths`, all of one store, read when asked for."""
    places = [_for_arrow(path) for path in paths]
    filesystem = places[0][1] if places else None
    return ds.dataset([place for place, _ in places], schema=schema, format="parquet", filesystem=filesystem)


def _for_arrow(path: Path) -> tuple[str, Any]:
    """(place, file system) as pyarrow wants them; None: the local one."""
    if not is_remote(path):
        return str(path), None
    remote: Any = path
    return remote.path, remote.fs
