"""Text files as blocks of numbered, decoded lines.

Lines are cut at newlines before anything is decoded: one line of wrong bytes costs that line, not the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.sources import HEAD_BYTES, UNREADABLE, AnyFile, kind_of, misnamed, open_file
from pipeline.domains.raw.texts import encodable
from pipeline.errors import DataError

BLOCK_BYTES = 16 << 20
MAX_LINE_BYTES = 16 << 20
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LineBlock:
    """Consecutive lines that are not blank.

    `numbers`: int64, 1-based. `text`: string without line ends; null where no encoding fits.
    `raw`: binary, the same lines as bytes.
    """

    numbers: pa.Array
    text: pa.Array
    raw: pa.Array

    def legible(self) -> tuple[pa.Array, pa.Array]:
        """(text, content): no nulls; bytes that do not decode are U+FFFD in one, `\\xff` in the other."""
        if not self.text.null_count:
            return self.text, self.text
        lost = pc.is_null(self.text)
        lines = [line.rstrip(b"\r\n") for line in self.raw.filter(lost).to_pylist()]
        replaced = pa.array([line.decode("utf-8", "replace") for line in lines], pa.string())
        shown = pa.array([line.decode("ascii", "backslashreplace") for line in lines], pa.string())
        return pc.replace_with_mask(self.text, lost, replaced), pc.replace_with_mask(self.text, lost, shown)


def read_line_blocks(
    path: AnyFile, fallback_encoding: str | None = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[LineBlock]:
    """Yield the lines of `path`, decoded as UTF-8, or else as the single-byte `fallback_encoding`.

    Blank lines are not rows and are left out, but they count for the numbers. A byte order mark is
    dropped. Raises `DataError` if the file cannot be read or is not made of lines.
    """
    first = 1
    try:
        with open_file(path) as file:
            for block in _whole_lines(file, path, block_bytes):
                raw = _cut_lines(block)
                yield _decoded(raw, first, fallback_encoding)
                first += len(raw)
    except UNREADABLE as error:
        told = misnamed(path) if first == 1 else None
        reason = told or getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _whole_lines(file: BinaryIO, path: AnyFile, block_bytes: int) -> Iterator[bytes]:
    """Blocks of bytes that end with a newline, the last one aside."""
    first = file.read(HEAD_BYTES)
    if (found := kind_of(first)) is not None:
        name, advice = found
        raise DataError(f"{path}: this is {name}; {advice.format(path)}")
    first, rest = first.removeprefix(UTF8_BOM), b""
    pieces = [first[start : start + block_bytes] for start in range(0, len(first), block_bytes)]
    for block in chain(pieces, iter(partial(file.read, block_bytes), b"")):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield rest + head + newline
            rest = tail
        else:
            rest += block
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{path}: a line is longer than {MAX_LINE_BYTES} bytes; is this a text file?")
    if rest:
        yield rest


def _cut_lines(block: bytes) -> pa.Array:
    """The lines of `block` as binary values, line ends included."""
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    )


def _decoded(raw: pa.Array, first: int, fallback_encoding: str | None) -> LineBlock:
    try:
        text = raw.cast(pa.string())
    except pa.ArrowInvalid:
        text = pa.array([_decode(line, fallback_encoding) for line in raw.to_pylist()], pa.string())
    text = pc.ascii_rtrim(text, characters="\r\n")
    numbers = pa.array(np.arange(first, first + len(raw), dtype=np.int64))
    filled = pc.fill_null(pc.not_equal(text, ""), True)
    return LineBlock(numbers.filter(filled), text.filter(filled), raw.filter(filled))


def _decode(line: bytes, fallback_encoding: str | None) -> str | None:
    """The text of `line`, or null. A C1 control is no text: it betrays another encoding.

    Surrogates that were encoded one by one, as some databases do, become characters, or U+FFFD.
    """
    text = _in_encoding(line, "utf-8")
    if text is None and (text := _in_encoding(line, "utf-8", "surrogatepass")) is not None:
        return encodable(text)
    if text is not None or fallback_encoding is None:
        return text
    text = _in_encoding(line, fallback_encoding)
    return None if text is None or any("\x80" <= character <= "\x9f" for character in text) else text


def _in_encoding(line: bytes, encoding: str, errors: str = "strict") -> str | None:
    try:
        return line.decode(encoding, errors)
    except UnicodeDecodeError:
        return None


def lines_at(path: AnyFile, fallback_encoding: str | None, numbers: pa.Array) -> pa.Array:
    """The text of the lines `numbers` (int64, ascending) of `path`, in a second pass over the file."""
    parts = []
    for block in read_line_blocks(path, fallback_encoding):
        wanted = pc.is_in(block.numbers, value_set=numbers)
        parts.append(block.text.filter(wanted))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())
