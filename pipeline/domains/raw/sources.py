"""Where raw bytes come from: local files, compressed ones, and whatever fsspec opens by URI."""

import glob
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
HEAD_BYTES = 512  # by which a file is recognized

# Where in a file which bytes say what it is, and what can be done about it; `{}` is its location.
_UNPACK = "its name must end with {suffix}, or decompress it first"
_IN_IT = "name the files in it, for example {protocol}://*.csv::{{}}, or unpack it first"
_REFUSED = "look into it: the download was probably refused"
_NO_TEXT = "save it as CSV or Parquet first"
_SIGNATURES = (
    (0, b"\x1f\x8b", "gzip data", _UNPACK.format(suffix=".gz")),
    (4, b"1AY&SY", "bzip2 data", _UNPACK.format(suffix=".bz2")),
    (0, b"\xfd7zXZ\x00", "xz data", _UNPACK.format(suffix=".xz")),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", _UNPACK.format(suffix=".zst")),
    (30, b"[Content_Types].xml", "an Excel workbook", _NO_TEXT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", _NO_TEXT),
    (
        0,
        b"PK\x03\x04",
        "a zip archive",
        _IN_IT.format(protocol="zip"),
    ),
    (257, b"ustar", "a tar archive", _IN_IT.format(protocol="tar")),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (0, b"PAR1\x15", "a Parquet file", "`reader: tabular` reads it with `format: parquet`"),
    (0, b"ARROW1\x00\x00", "an Arrow file", _NO_TEXT),
    (0, b"Obj\x01", "an Avro file", _NO_TEXT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _NO_TEXT),
    (0, b"SQLite format 3\x00", "an SQLite database", _NO_TEXT),
    (0, b"\x93NUMPY", "a NumPy array", _NO_TEXT),
    (0, b"\x80\x04\x95", "a Python pickle", _NO_TEXT),
    (0, b"\x80\x05\x95", "a Python pickle", _NO_TEXT),
    (0, b"%PDF-", "a PDF document", _NO_TEXT),
    (0, b"<!doctype html", "a web page", _REFUSED),
    (0, b"<html", "a web page", _REFUSED),
    (
        0,
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer",
        "fetch the file with `git lfs pull`",
    ),
)
_TO_UTF8 = "convert it first, for example with `iconv -f {encoding} -t UTF-8`"


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

    @property
    def compression(self) -> str | None:
        """The compression that the name promises."""
        return _COMPRESSED.get(PurePosixPath(self.name).suffix.lower())

    def open(self, mode: Literal["rb"] = "rb", as_stored: bool = False) -> BinaryIO:
        """The decompressed bytes, or those on disk. Raises `DataError` if nothing can be opened."""
        compression = None if as_stored else self.compression
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


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file that begins with `head` (HEAD_BYTES of it) is, and what to do; None: it may be text."""
    for start, signature, name, advice in _SIGNATURES:
        if head[start : start + len(signature)].lower() == signature.lower():
            return name, advice
    if encoding := _wide_encoding(head):
        return f"{encoding} text", _TO_UTF8.format(encoding=encoding)
    return None


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, told by its mark, or by a zero beside most characters."""
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    num_pairs = len(head) // 2
    zeros = [head[first::2].count(0) for first in (0, 1)]
    if num_pairs < 4 or max(zeros) * 2 < num_pairs or min(zeros):
        return None
    return "UTF-16BE" if zeros[0] else "UTF-16LE"


def misnamed(path: AnyFile) -> str | None:
    """What a file is whose name promises another compression, and what to do; None: that is not its fault."""
    if not isinstance(path, Source) or path.compression is None:
        return None
    with path.open(as_stored=True) as file:
        name, _ = kind_of(file.read(HEAD_BYTES)) or ("not compressed", "")
    suffix = PurePosixPath(path.name).suffix
    is_so = name.startswith({"bz2": "bzip2"}.get(path.compression, path.compression))
    return None if is_so else f"its name ends with {suffix}, but it is {name}; rename it"


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
            raise DataError(f"{field}={pattern}: {_why_nothing(pattern, location, base)}")
        _reject_archives(pattern, matches, field)
        found.extend(match for match in matches if match not in found)
    if not found:
        raise DataError(f"{field}: names no file")
    return [Source(location) for location in found]


def _why_nothing(pattern: str, location: str, base: str | None) -> str:
    """Why `location` names no file: a folder is there, or the raw folder is a file."""
    if base is not None and "://" not in base and Path(base).expanduser().is_file():
        return f"dataset.raw={base} is a file; name the folder that the files are in"
    with suppress(*_UNUSABLE), _errors_as_os_errors():
        filesystem, path = _filesystem(location)
        found = [path] if filesystem.isdir(path) else sorted(filter(filesystem.isdir, filesystem.glob(path)))
        if found:
            names = [PurePosixPath(name) for name in filesystem.ls(found[0], detail=False)]
            suffix = next((name.suffix for name in sorted(names) if name.suffix), ".csv")
            return f"is a folder; name the files in it, for example {pattern.rstrip('/')}/*{suffix}"
    return f"there is no such file ({location})"


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
