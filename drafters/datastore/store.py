"""A datastore version, opened for reading."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from drafters.datastore.directory import BYTES_PER_ENTITY, EntityDirectory
from drafters.datastore.format import CALIBRATION, HEADER, DatastoreError, StoreHeader, TokenIds
from drafters.datastore.segment import Segment, map_file

DOMAIN_GROUP = "_domain"
"""Name of the pool that holds documents of every group of a kind, up to a token budget."""


class Datastore:
    """All pools of one version, memory-mapped: opening reads no token."""

    def __init__(self, folder: Path, header: StoreHeader) -> None:
        self.folder = folder
        self.header = header
        self._pools: dict[tuple[str, str], list[Segment]] = {}
        self._texts: dict[str, list[Segment]] = {}  # by kind, in the order of the header
        for entry in header.segments:
            segment = Segment.open(folder, entry, header.dtype)
            if entry.is_indexed:
                self._pools.setdefault((entry.kind, entry.group), []).append(segment)
            if entry.group != DOMAIN_GROUP:
                self._texts.setdefault(entry.kind, []).append(segment)
        self._directories = {
            kind: _open_directory(folder, kind, entry.num_entities)
            for kind, entry in header.directories.items()
        }

    @classmethod
    def open(cls, folder: Path | str, tokenizer_hash: str, vocab_size: int) -> "Datastore":
        """Open the version in `folder`; refuse one that another tokenizer or vocabulary wrote.

        Sizes are checked here, contents by `verify`.
        """
        folder = Path(folder)
        header = StoreHeader.read(folder)
        if header.tokenizer_hash != tokenizer_hash:
            raise DatastoreError(
                f"{folder}: its pools were written with tokenizer {header.tokenizer_hash[:12]}, "
                f"the model's is {tokenizer_hash[:12]}"
            )
        if header.vocab_size != vocab_size:
            raise DatastoreError(
                f"{folder}: vocabulary size {header.vocab_size}, the model's is {vocab_size}"
            )
        return cls(folder, header)

    def pool(self, kind: str, group: str) -> list[Segment]:
        """Searched segments of the pool of (`kind`, `group`), oldest first; empty if there is none."""
        return self._pools.get((kind, group), [])

    def previous(self, kind: str, entity: int) -> TokenIds | None:
        """Token ids of the youngest text of `entity` (see `entity_key`), or None; whatever its group was."""
        if kind not in self._texts:
            return None
        if kind not in self._directories:  # a version of an earlier release
            self._directories[kind] = EntityDirectory.of([text.entities for text in self._texts[kind]])
        found = self._directories[kind].find(entity)
        if found is None:
            return None
        segment, document = found
        return self._texts[kind][segment].document(document).token_ids

    def pools(self) -> Iterator[tuple[str, str, list[Segment]]]:
        """(kind, group, searched segments) of every pool."""
        for (kind, group), segments in self._pools.items():
            yield kind, group, segments

    @property
    def num_tokens(self) -> int:
        """Pooled tokens of all groups; the domain pools, which repeat them, are not counted."""
        return sum(entry.num_tokens for entry in self.header.segments if entry.group != DOMAIN_GROUP)

    def calibration(self) -> dict[str, Any] | None:
        """The drafter's calibration if one was stored with this version; `DatastoreError` if it is broken."""
        path = self.folder / CALIBRATION
        checksum = self.header.calibration_checksum
        if checksum is None and not path.exists():
            return None
        try:
            data = path.read_bytes()
            learned: dict[str, Any] = json.loads(data)
        except (OSError, ValueError) as error:
            raise DatastoreError(f"{path}: unreadable calibration: {error}") from error
        # Versions of earlier releases have a calibration without a checksum.
        if checksum is not None and hashlib.sha256(data).hexdigest() != checksum:
            raise DatastoreError(f"{path}: its content does not match the checksum in {HEADER}")
        return learned

    def verify(self) -> None:
        """Compare every file with its checksum; raise `DatastoreError` naming the first that differs."""
        for entry in self.header.segments:
            for suffix in entry.suffixes:
                _check(entry.path(self.folder, suffix), entry.checksums.get(suffix))
        for kind, directory in self.header.directories.items():
            _check(directory_path(self.folder, kind), directory.checksum)
        self.calibration()


def directory_path(folder: Path, kind: str) -> Path:
    """The file of the kind's `EntityDirectory` in the version `folder`."""
    return folder / f"{kind}.directory"


def _open_directory(folder: Path, kind: str, num_entities: int) -> EntityDirectory:
    data = map_file(directory_path(folder, kind), np.dtype(np.uint8), num_entities * BYTES_PER_ENTITY)
    return EntityDirectory.view(data)


def _check(path: Path, checksum: str | None) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != checksum:
            raise DatastoreError(f"{path}: its content does not match the checksum in {HEADER}")
