"""What lies on disk.

```
<version>/header.json                         StoreHeader
<version>/calibration.json                    what the drafter learned (optional)
<version>/<kind>/<group>/<segment>.tokens     little-endian uint16 or uint32, documents end with the separator
<version>/<kind>/<group>/<segment>.index      little-endian int32, the prefix array of .tokens
<version>/<kind>/<group>/<segment>.docs       little-endian int64, start of each document, then the total
<version>/<kind>/<group>/<segment>.entities   little-endian uint64, `entity_key` of each document
<version>/<kind>.directory                    where each entity's youngest text is (optional), see `directory`
```

`.index` is a suffix array of the *reversed* tokens: it lists all positions, ordered by the token there,
then by the token before it, and so on. The occurrences of a context are thus neighbours in it, and the
closer a neighbour, the longer the context that it shares: one binary search finds the longest match and
its k nearest competitors. Its size is 4 bytes a token; with 2 bytes a token for vocabularies below 65,535
and 4 above, a pooled token takes 6 or 8 bytes on disk and, mapped, in memory.

A segment may lack its `.index`: its documents are beyond what a pool may have searched, or repeat a text that
is searched, and are found by their entity alone.

Invariants: len(index) == len(tokens); every document is followed by one separator; the separator is the
largest value of the dtype and no token id; a segment has fewer than 2**31 tokens.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 1
HEADER = "header.json"
CALIBRATION = "calibration.json"
INDEX = ".index"
SUFFIXES = (".tokens", INDEX, ".docs", ".entities")
MAX_SEGMENT_TOKENS = 2**31 - 2
TokenIds = npt.NDArray[np.integer[Any]]


class DatastoreError(Exception):
    """A datastore that cannot be built or must not be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Document:
    """The text of one entity, as tokens."""

    entity: int  # `entity_key` of its id
    token_ids: TokenIds
    is_searched: bool = True  # False: it drafts for its own entity alone

    @classmethod
    def of(cls, entity_id: str, token_ids: TokenIds) -> "Document":
        """The document of entity `entity_id`."""
        return cls(entity_key(entity_id), token_ids)


@dataclass(frozen=True)
class SegmentEntry:
    """What the header knows of one segment of one pool."""

    kind: str
    group: str
    name: str
    num_tokens: int  # separators included
    num_documents: int
    checksums: Mapping[str, str]  # file suffix -> sha256, hex
    is_indexed: bool = True

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of the segment's files."""
        return SUFFIXES if self.is_indexed else tuple(suffix for suffix in SUFFIXES if suffix != INDEX)

    def path(self, root: Path, suffix: str) -> Path:
        """The segment's file with `suffix` in the version folder `root`."""
        return root / self.kind / self.group / f"{self.name}{suffix}"


@dataclass(frozen=True)
class DirectoryEntry:
    """What the header knows of a kind's directory of entities."""

    num_entities: int
    checksum: str  # sha256, hex


@dataclass(frozen=True)
class StoreHeader:
    """The header of a datastore version."""

    version: str
    vocab_size: int
    tokenizer_hash: str
    source: str  # the run or snapshot whose knowledge came in last
    segments: tuple[SegmentEntry, ...] = field(default=())
    calibration_checksum: str | None = None  # sha256 of calibration.json, hex; None: there is none
    directories: Mapping[str, DirectoryEntry] = field(default_factory=dict)  # by kind
    history_cutoff: datetime | None = None  # no text saw an event at or after it (UTC); None: not known
    format_version: int = FORMAT_VERSION

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of .tokens."""
        return token_dtype(self.vocab_size)

    def to_json(self) -> str:
        """The header as JSON text."""
        content = {**asdict(self), "dtype": self.dtype.str}
        if self.history_cutoff is not None:
            content["history_cutoff"] = self.history_cutoff.isoformat()
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "StoreHeader":
        """Read the header of the version in `folder`; raise `DatastoreError` naming the file."""
        path = folder / HEADER
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["format_version"] != FORMAT_VERSION:
                raise DatastoreError(f"{path}: format version {raw['format_version']}, not {FORMAT_VERSION}")
            dtype = raw.pop("dtype")
            raw["segments"] = tuple(SegmentEntry(**entry) for entry in raw["segments"])
            directories = raw.get("directories", {})
            raw["directories"] = {kind: DirectoryEntry(**entry) for kind, entry in directories.items()}
            if (cutoff := raw.get("history_cutoff")) is not None:
                raw["history_cutoff"] = datetime.fromisoformat(cutoff)
            header = cls(**raw)
            is_fitting = np.dtype(dtype) == header.dtype
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatastoreError(f"{path}: unreadable header: {error}") from error
        if not is_fitting:
            raise DatastoreError(f"{path}: dtype {dtype} does not fit a vocabulary of {header.vocab_size}")
        return header


def entity_key(entity_id: str) -> int:
    """A 64-bit hash of `entity_id`, stable across processes: how documents remember whose they are."""
    return int.from_bytes(hashlib.blake2b(entity_id.encode(), digest_size=8).digest(), "little")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype that holds every token id and the separator."""
    return np.dtype("<u2") if vocab_size <= np.iinfo(np.uint16).max else np.dtype("<u4")


def separator(dtype: np.dtype[Any]) -> int:
    """The value that ends a document: the largest of the dtype, never a token id."""
    return int(np.iinfo(dtype).max)
