"""One indexed run of documents, in memory or memory-mapped."""

import ctypes
import hashlib
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydivsufsort
from pydivsufsort.divsufsort import libdivsufsort

from drafters.datastore.format import (
    INDEX,
    MAX_SEGMENT_TOKENS,
    SUFFIXES,
    DatastoreError,
    Document,
    SegmentEntry,
    TokenIds,
    separator,
)

INDEX_DTYPE = np.dtype("<i4")
DOCS_DTYPE = np.dtype("<i8")
ENTITIES_DTYPE = np.dtype("<u8")


@dataclass(frozen=True)
class Segment:
    """Tokens of documents and their prefix array; see `drafters.datastore.format` for the invariants."""

    tokens: npt.NDArray[Any]  # uint16 or uint32 [num_tokens]
    index: npt.NDArray[np.int32]  # [num_tokens]
    docs: npt.NDArray[np.int64]  # [num_documents + 1]
    entities: npt.NDArray[np.uint64]  # [num_documents]

    @property
    def num_tokens(self) -> int:
        """Tokens, separators included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.docs) - 1

    @property
    def num_bytes(self) -> int:
        """Bytes on disk, and in memory when every page is resident."""
        return sum(array.nbytes for array in (self.tokens, self.index, self.docs, self.entities))

    def document(self, number: int) -> Document:
        """Document `number`; its token ids are a view."""
        ids = self.tokens[self.docs[number] : self.docs[number + 1] - 1]
        return Document(int(self.entities[number]), ids)

    def documents(self) -> list[Document]:
        """All documents, in order."""
        return [self.document(number) for number in range(self.num_documents)]

    @classmethod
    def build(cls, documents: Sequence[Document], dtype: np.dtype[Any], is_indexed: bool = True) -> "Segment":
        """Index `documents`. Building takes about 20 bytes of memory a token of 2 bytes, 40 of 4.

        Without index they are kept for their entities only.
        """
        tokens, docs = concatenate([document.token_ids for document in documents], dtype)
        entities = np.fromiter((document.entity for document in documents), ENTITIES_DTYPE, len(documents))
        index = prefix_array(tokens) if is_indexed else np.empty(0, INDEX_DTYPE)
        return cls(tokens, index, docs, entities)

    @classmethod
    def open(cls, root: Path, entry: SegmentEntry, dtype: np.dtype[Any]) -> "Segment":
        """Map the files of `entry`; raise `DatastoreError` if one is missing or has the wrong size."""
        tokens = map_file(entry.path(root, ".tokens"), dtype, entry.num_tokens)
        index: npt.NDArray[np.int32] = np.empty(0, INDEX_DTYPE)
        if entry.is_indexed:
            index = map_file(entry.path(root, INDEX), INDEX_DTYPE, entry.num_tokens)
        docs = map_file(entry.path(root, ".docs"), DOCS_DTYPE, entry.num_documents + 1)
        entities = map_file(entry.path(root, ".entities"), ENTITIES_DTYPE, entry.num_documents)
        return cls(tokens, index, docs, entities)

    def write(self, root: Path, kind: str, group: str, name: str) -> SegmentEntry:
        """Write and flush the files below `root`; return their header entry."""
        arrays: dict[str, npt.NDArray[Any]] = dict(
            zip(SUFFIXES, (self.tokens, self.index, self.docs, self.entities), strict=True)
        )
        is_indexed = len(self.index) == self.num_tokens
        entry = SegmentEntry(kind, group, name, self.num_tokens, self.num_documents, {}, is_indexed)
        entry.path(root, INDEX).parent.mkdir(parents=True, exist_ok=True)
        checksums = {
            suffix: write_flushed(entry.path(root, suffix), arrays[suffix].tobytes())
            for suffix in entry.suffixes
        }
        return replace(entry, checksums=checksums)


def concatenate(
    documents: Sequence[TokenIds], dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Lay documents end to end, each followed by the separator; also their starts and the total."""
    lengths = np.fromiter((len(document) + 1 for document in documents), np.int64, len(documents))
    docs = np.zeros(len(documents) + 1, DOCS_DTYPE)
    np.cumsum(lengths, out=docs[1:])
    if docs[-1] > MAX_SEGMENT_TOKENS:
        raise DatastoreError(f"a segment holds at most {MAX_SEGMENT_TOKENS} tokens, not {docs[-1]}")
    tokens = np.full(int(docs[-1]), separator(dtype), dtype)
    for start, document in zip(docs[:-1], documents, strict=True):
        ids = np.asarray(document)
        if ids.size and (ids.min() < 0 or ids.max() >= separator(dtype)):
            raise DatastoreError(
                f"token ids must lie in [0, {separator(dtype)}), found {ids.min()}..{ids.max()}"
            )
        tokens[start : start + len(ids)] = ids
    return tokens, docs


def prefix_array(tokens: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Positions of `tokens` ordered by the token there, then the one before it, and so on.

    This is the suffix array of the reversed tokens. libdivsufsort sorts bytes; written big-endian,
    tokens sort like their bytes, and every `itemsize`-th entry of the byte order is a token boundary.
    """
    num_tokens, itemsize = len(tokens), tokens.dtype.itemsize
    if num_tokens == 0:
        return np.empty(0, INDEX_DTYPE)
    big_endian = np.ascontiguousarray(tokens[::-1].astype(tokens.dtype.newbyteorder(">")))
    _use_one_thread()
    order = pydivsufsort.divsufsort(big_endian.view(np.uint8))
    order = order[order % itemsize == 0]
    np.floor_divide(order, itemsize, out=order)
    np.subtract(num_tokens - 1, order, out=order)
    return order.astype(INDEX_DTYPE, copy=False)


def _use_one_thread() -> None:
    """Keep libdivsufsort's OpenMP to the calling thread: its team costs a small text up to ten milliseconds.

    On a machine whose cores are busy decoding, the team waits for cores at every barrier. The setting is
    that of the thread and of the library's own OpenMP; vLLM's is another.
    """
    set_num_threads = getattr(libdivsufsort, "omp_set_num_threads", None)
    if set_num_threads is not None:
        set_num_threads(1)


def write_flushed(path: Path, data: bytes) -> str:
    """Write `data` to the disk; its sha256, hex."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def map_file(path: Path, dtype: np.dtype[Any], length: int) -> npt.NDArray[Any]:
    """Map `length` values of `dtype`, read-only and shared between the processes of a node."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DatastoreError(f"{path}: missing, though the header names it") from error
    if size != length * dtype.itemsize:
        raise DatastoreError(
            f"{path}: {size} bytes, the header says {length * dtype.itemsize} (truncated or altered)"
        )
    if length == 0:
        return np.empty(0, dtype)
    with path.open("rb") as file:
        mapping = _Mapping(file.fileno(), size)
    return np.asarray(mapping).view(dtype)


class _Mapping:
    """A read-only, shared mapping of a whole file, as bytes for `np.asarray`, unmapped with its last array.

    Python's `mmap` keeps a file descriptor open for each mapping; with four files a segment, a store of a
    few hundred pools would exceed the usual limit of 1,024.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, _MAP_FAILED):
            raise OSError(ctypes.get_errno(), f"mmap: {os.strerror(ctypes.get_errno())}")
        weakref.finalize(self, _LIBC.munmap, address, size).atexit = False
        # A search touches single pages; read-ahead would evict useful ones.
        _LIBC.madvise(address, size, mmap.MADV_RANDOM)
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "data": (address, True), "shape": (size,)}


_MAP_FAILED = ctypes.c_void_p(-1).value
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
