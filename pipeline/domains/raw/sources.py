"""Where raw bytes come from: local files, compressed ones, and whatever fsspec opens by URI."""

import glob
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from fsspec.compression import compr
from fsspec.core import split_protocol, url_to_fs

from pipeline.domains.raw.watch import watched
from pipeline.errors import DataError

# What reading a damaged, locked or vanished file raises, whatever it is compressed with.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
# What opening a URI can raise besides: unknown protocols, missing packages, wrong options.
_UNUSABLE = (*UNREADABLE, ValueError, ImportError, RuntimeError, NotImplementedError, TypeError, LookupError)
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


@dataclass(frozen=True)
class Source:
    """One raw file: a local path or an fsspec URI. A compressed file is read as what is inside."""

    location: str

    def __str__(self) -> str:
        return self.location

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.location.split("::")[0]).name

    @property
    def extension(self) -> str:
        """The extension without that of a compression, lower case: `.csv` for `x.CSV.gz`."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.name).suffixes]
        return next((suffix for suffix in reversed(suffixes) if suffix not in _COMPRESSED), "")

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """The decompressed bytes. Raises `DataError` if nothing can be opened."""
        compression = _COMPRESSED.get(PurePosixPath(self.name).suffix.lower())
        if compression is not None and compression not in compr:
            raise DataError(f"{self}: cannot be opened: {compression} needs the package zstandard")
        try:
            filesystem, path = _filesystem(self.location)
            raw = filesystem.open(path, mode)
            file = watched(raw, self.name, getattr(raw, "size", None))
            opened: BinaryIO = compr[compression](file, mode="r") if compression else file
        except _UNUSABLE as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self}: cannot be opened: {reason}") from error
        return opened


AnyFile = Path | Source  # what readers of text open


def open_file(path: AnyFile) -> BinaryIO:
    """The bytes of `path`, a compressed source's decompressed."""
    if isinstance(path, Source):
        return path.open()
    opened: BinaryIO = watched(path.open("rb"), path.name, path.stat().st_size)
    return opened


def find_sources(patterns: str | Sequence[str], base: str | None, field: str) -> list[Source]:
    """The files that `patterns` name, in the order of the patterns, those of one pattern sorted.

    Relative paths are below `base` (a folder or a URI; None: the working folder). Raises `DataError`
    naming `field` for a pattern that names no file.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        location = _absolute(pattern, base)
        matches = _matches(location, field)
        if not matches:
            raise DataError(f"{field}={pattern}: there is no such file ({location})")
        found.extend(match for match in matches if match not in found)
    if not found:
        raise DataError(f"{field}: names no file")
    return [Source(location) for location in found]


@lru_cache(maxsize=256)
def _filesystem(location: str) -> tuple[Any, str]:
    """The file system of `location`, and the path in it. Kept: an archive closes when it is forgotten."""
    filesystem, path = url_to_fs(location)
    return filesystem, path


def _absolute(pattern: str, base: str | None) -> str:
    if "://" in pattern or "\0" in pattern:
        return pattern
    if base and "://" in base:
        return f"{base.rstrip('/')}/{pattern}"
    return str(Path(base or ".").expanduser() / Path(pattern).expanduser())


def _matches(location: str, field: str) -> list[str]:
    try:
        if "://" not in location:
            if Path(location).is_file():
                return [location]
            found = glob.glob(location, recursive=True)  # noqa: PTH207  the pattern may be absolute
            return [path for path in sorted(found) if Path(path).is_file()]
        return _matching_uris(location)
    except _UNUSABLE as error:
        raise DataError(f"{field}={location}: {error}") from error


def _matching_uris(location: str) -> list[str]:
    """URIs for every match of the first link of the chain `a://pattern::b://…`."""
    first, *rest = location.split("::")
    protocol, _ = split_protocol(first)
    filesystem, path = _filesystem(location)
    has_pattern = any(character in path for character in "*?[")
    paths = sorted(filesystem.glob(path)) if has_pattern else [path] * filesystem.isfile(path)
    return ["::".join([f"{protocol}://{match}", *rest]) for match in paths]
