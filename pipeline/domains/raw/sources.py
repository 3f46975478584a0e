"""Where raw bytes come from: local files, compressed ones, and whatever fsspec opens by URI."""

import glob
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_ARCHIVES = {".zip": "zip", ".tar": "tar", ".tgz": "tar"}


@dataclass(frozen=True)
class Source:
    """One raw file: a local path or an fsspec URI. A compressed file is read as what is inside."""

    location: str

    def __str__(self) -> str:
        return self.location

    @property
    def name(self) -> str:
        """The file's name: of a chain `a::b://x::c://y` that of `x`, without a query."""
        links = self.location.split("::")
        link = next((link for link in links if "://" in link), links[0])
        is_web = link.startswith(("http://", "https://"))
        return PurePosixPath(link.partition("?")[0] if is_web else link).name

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
            with _errors_as_os_errors():
                filesystem, path = _filesystem(self.location)
                raw = filesystem.open(path, mode)
            if "://" in self.location:
                raw = _Remote(raw)
            file = watched(raw, self.name, getattr(raw, "size", None))
            opened: BinaryIO = compr[compression](file, mode="r") if compression else file
        except _UNUSABLE as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self}: cannot be opened: {reason}") from error
        return opened


@contextmanager
def _errors_as_os_errors() -> Iterator[None]:
    """Turns what no reader knows into an OSError: each protocol's client has errors of its own."""
    try:
        yield
    except (*_UNUSABLE, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Remote:
    """A file behind a URI, whose reads fail with an OSError whatever the protocol."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """As the file's own."""
        with _errors_as_os_errors():
            content: bytes = self._file.read(size)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
    naming `field` for a pattern that names no file, or an archive instead of files in it.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        location = _absolute(pattern, base)
        matches = _matches(location, field)
        if not matches:
            raise DataError(f"{field}={pattern}: there is no such file ({location})")
        _reject_archives(pattern, matches, field)
        found.extend(match for match in matches if match not in found)
    if not found:
        raise DataError(f"{field}: names no file")
    return [Source(location) for location in found]


def _reject_archives(pattern: str, matches: list[str], field: str) -> None:
    for match in matches:
        if (protocol := _ARCHIVES.get(Source(match).extension)) is not None:
            inside = f"{protocol}://*.csv::{match}"
            raise DataError(f"{field}={pattern}: is an archive; name the files in it, for example {inside}")


@lru_cache(maxsize=256)
def _filesystem(location: str) -> tuple[Any, str]:
    """The file system of `location`, and the path in it. Kept: an archive closes when it is forgotten."""
    filesystem, path = url_to_fs(location)
    return filesystem, path


def _absolute(pattern: str, base: str | None) -> str:
    """Where `pattern` is. Of a chain `a://x::b` only the last link is below `base`, the others are inside."""
    if "\0" in pattern:
        return pattern
    if "://" in pattern:
        *inside, last = pattern.split("::")
        return "::".join([*inside, last if "://" in last else _absolute(last, base)]) if inside else pattern
    path = Path(pattern).expanduser()
    if base and "://" in base and not path.is_absolute():
        folder, *outside = base.split("::")
        return "::".join([f"{folder}{pattern}" if folder.endswith("/") else f"{folder}/{pattern}", *outside])
    return str(Path(base or ".").expanduser() / path)


def _matches(location: str, field: str) -> list[str]:
    try:
        if "://" not in location:
            if Path(location).is_file():
                return [location]
            found = glob.glob(location, recursive=True)  # noqa: PTH207  the pattern may be absolute
            return [path for path in sorted(found) if Path(path).is_file()]
        with _errors_as_os_errors():
            return _matching_uris(location)
    except _UNUSABLE as error:
        raise DataError(f"{field}={location}: {error}") from error


def _matching_uris(location: str) -> list[str]:
    """URIs for every match of the first link with a path in the chain `a://pattern::b://…`."""
    filesystem, path = _filesystem(location)
    if filesystem.isfile(path):
        return [location]
    if not any(character in path for character in "*?["):
        return []
    links = location.split("::")
    position = next(number for number, link in enumerate(links) if "://" in link)  # `simplecache` has no path
    link = links[position]
    start = link.removesuffix(path) if link.endswith(path) else f"{split_protocol(link)[0]}://"
    return [
        "::".join([*links[:position], start + match, *links[position + 1 :]])
        for match in sorted(filesystem.glob(path))
    ]
