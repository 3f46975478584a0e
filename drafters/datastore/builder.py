"""Builds a new datastore version from the one in force and the knowledge of a run."""

import json
import logging
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from drafters.datastore.directory import EntityDirectory
from drafters.datastore.format import (
    CALIBRATION,
    HEADER,
    DatastoreError,
    DirectoryEntry,
    Document,
    SegmentEntry,
    StoreHeader,
)
from drafters.datastore.segment import Segment, write_flushed
from drafters.datastore.store import DOMAIN_GROUP, Datastore, directory_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolLimits:
    """Bounds of a pool. Beyond them it is compacted: superseded texts go, then the oldest lose their index.

    What is not indexed still drafts for its own entity. A domain pool, which repeats others, drops it.
    """

    max_pool_tokens: int = 100_000_000  # searched
    compacted_share: float = 0.8  # of a bound, so that not every night compacts
    max_domain_tokens: int = 20_000_000
    max_segment_tokens: int = 32_000_000  # bounds the memory of a build: about 0.7 GB for 2-byte tokens
    max_segments: int = 4
    max_superseded_share: float = 0.25


class DatastoreBuilder:
    """Writes version `header.version` below `root`: `add` each pool's new documents, then `finish`.

    The version in force, `previous`, is never touched: its segments are hard-linked where they are kept.
    Nothing is visible under the version's name before `finish` has flushed everything; a crash leaves
    only a folder with a temporary name, which the next build of that version removes.
    """

    def __init__(
        self,
        root: Path,
        header: StoreHeader,
        previous: Datastore | None = None,
        limits: PoolLimits | None = None,
    ) -> None:
        if previous is not None:
            _check_extensible(previous, header)
        self._final = root / header.version
        self._folder = root / f".tmp-{header.version}"
        self._header = header
        self._previous = previous
        self._limits = limits or PoolLimits()
        self._entries: list[SegmentEntry] = []  # of this version's own segments
        self._carried_entries: list[SegmentEntry] = []  # older, so they stand first in the header
        self._pools_done: set[tuple[str, str]] = set()
        self._progress = _Progress()
        # A quarter of the budget: a new night never displaces all older ones.
        self._domain: dict[str, DocumentSample] = defaultdict(
            lambda: DocumentSample(self._limits.max_domain_tokens // 4)
        )
        if self._final.exists():
            raise DatastoreError(f"{self._final}: this version exists; versions are immutable")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def add(self, kind: str, group: str, documents: Iterable[Document]) -> None:
        """Extend the pool of (`kind`, `group`) by `documents`, which are consumed as a stream.

        A text that several entities have is searched once; for the others it is kept as their own.
        """
        if group == DOMAIN_GROUP or (kind, group) in self._pools_done:
            raise DatastoreError(f"pool {kind}/{group} was added before, or has a reserved name")
        if not (_is_folder_name(kind) and _is_folder_name(group)):
            raise DatastoreError(f"pool {kind!r}/{group!r}: kind and group must be plain folder names")
        self._pools_done.add((kind, group))
        documents = self._sampled_for_domain(kind, _searched_once(documents))
        self._write_pool(kind, group, documents, self._limits.max_pool_tokens)

    def finish(self, calibration: dict[str, Any] | None = None) -> Path:
        """Write the domain pools, carry over untouched pools, make the version visible; return its folder."""
        for kind, group in self._previous_pools():
            if group != DOMAIN_GROUP and (kind, group) not in self._pools_done:
                self._carried_entries += self._carried(kind, group)
        for kind in {kind for kind, _ in self._pools_done} | self._previous_kinds():
            documents = _searched_once(self._domain[kind].documents)
            self._write_pool(kind, DOMAIN_GROUP, documents, self._limits.max_domain_tokens)
        checksum = None
        if calibration is not None:
            checksum = write_flushed(self._folder / CALIBRATION, json.dumps(calibration).encode())
        header = replace(
            self._header,
            segments=(*self._carried_entries, *self._entries),
            calibration_checksum=checksum,
            directories=self._write_directories(),
        )
        write_flushed(self._folder / HEADER, header.to_json().encode())
        # A file is found after a crash only if its folder was flushed too.
        for path in self._folder.rglob("*"):
            if path.is_dir():
                _flush_folder(path)
        _flush_folder(self._folder)
        self._folder.replace(self._final)
        _flush_folder(self._final.parent)
        return self._final

    def _previous_pools(self) -> list[tuple[str, str]]:
        entries = self._previous.header.segments if self._previous else ()
        return sorted({(entry.kind, entry.group) for entry in entries})

    def _previous_kinds(self) -> set[str]:
        return {kind for kind, _ in self._previous_pools()}

    def _write_directories(self) -> dict[str, DirectoryEntry]:
        texts: dict[str, list[SegmentEntry]] = defaultdict(list)
        for entry in (*self._carried_entries, *self._entries):
            if entry.group != DOMAIN_GROUP:
                texts[entry.kind].append(entry)
        written = {}
        for kind, entries in texts.items():
            segments = [Segment.open(self._folder, entry, self._header.dtype) for entry in entries]
            directory = EntityDirectory.of([segment.entities for segment in segments])
            checksum = write_flushed(directory_path(self._folder, kind), directory.tobytes())
            written[kind] = DirectoryEntry(len(directory.keys), checksum)
        return written

    def _sampled_for_domain(self, kind: str, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass `documents` through, empty ones apart; each pool gives its share to the domain pool."""
        for document in documents:
            if len(document.token_ids):
                if document.is_searched:
                    self._domain[kind].add(document)
                yield document

    def _write_pool(self, kind: str, group: str, documents: Iterable[Document], budget: int) -> None:
        carried = self._carried(kind, group)
        room = budget if not carried else None  # what is new beside others is compacted with them
        written = self._write_segments(kind, group, documents, first=_next_number(carried), budget=room)
        if self._needs_compaction(carried + written, budget):
            written = self._compact(carried + written, int(self._limits.compacted_share * budget))
            carried = []
        self._carried_entries += carried
        self._entries += written
        entries = carried + written
        num_tokens = sum(entry.num_tokens for entry in entries)
        num_searched = sum(entry.num_tokens for entry in entries if entry.is_indexed)
        if num_searched < num_tokens > budget:  # else only texts that others have too are passed over
            logger.info("pool %s/%s: %d of %d tokens are searched", kind, group, num_searched, num_tokens)
        self._progress.num_pools += 1

    def _carried(self, kind: str, group: str) -> list[SegmentEntry]:
        """Hard-link the previous version's segments of this pool into the new version."""
        if self._previous is None:
            return []
        entries = [e for e in self._previous.header.segments if (e.kind, e.group) == (kind, group)]
        for entry in entries:
            for suffix in entry.suffixes:
                target = entry.path(self._folder, suffix)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(entry.path(self._previous.folder, suffix), target)
        return entries

    def _write_segments(
        self, kind: str, group: str, documents: Iterable[Document], first: int, budget: int | None = None
    ) -> list[SegmentEntry]:
        """Index `documents` up to `budget` tokens; what comes then is kept for its entities, or dropped."""
        entries: list[SegmentEntry] = []
        num_tokens = 0
        limit = self._limits.max_segment_tokens
        for batch in _batched_by_tokens(documents, min(limit, budget or limit)):
            is_indexed = batch[0].is_searched
            if is_indexed:
                num_tokens += sum(len(document.token_ids) + 1 for document in batch)
                is_indexed = budget is None or num_tokens <= budget
            if not is_indexed and group == DOMAIN_GROUP:
                continue
            segment = Segment.build(batch, self._header.dtype, is_indexed)
            entries.append(segment.write(self._folder, kind, group, f"{first + len(entries):06d}"))
            self._progress.add(segment.num_tokens)
        return entries

    def _needs_compaction(self, entries: list[SegmentEntry], budget: int) -> bool:
        searched = [entry for entry in entries if entry.is_indexed]
        num_tokens = sum(entry.num_tokens for entry in searched)
        full_segments = num_tokens // self._limits.max_segment_tokens
        if num_tokens > budget or len(searched) > self._limits.max_segments + full_segments:
            return True
        if len(entries) < 2:
            return False
        num_documents = sum(entry.num_documents for entry in entries)
        segments = [Segment.open(self._folder, entry, self._header.dtype) for entry in entries]
        num_entities = len(np.unique(np.concatenate([segment.entities for segment in segments])))
        return num_documents - num_entities > self._limits.max_superseded_share * num_documents

    def _compact(self, entries: list[SegmentEntry], budget: int) -> list[SegmentEntry]:
        """Merge `entries`: the youngest text of each entity; the youngest entities are indexed."""
        searched: list[Document] = []
        others: list[Document] = []
        num_tokens = 0
        for document in _searched_once(self._youngest_first(entries)):
            num_tokens += len(document.token_ids) + 1 if document.is_searched else 0
            is_searched = document.is_searched and num_tokens <= budget
            (searched if is_searched else others).append(document)
        kind, group = entries[0].kind, entries[0].group
        first = _next_number(entries)
        merged = self._write_segments(kind, group, reversed(others), first, budget=0)
        merged += self._write_segments(kind, group, reversed(searched), first + len(merged))
        for entry in entries:
            for suffix in entry.suffixes:
                entry.path(self._folder, suffix).unlink()
        return merged

    def _youngest_first(self, entries: list[SegmentEntry]) -> Iterator[Document]:
        """The youngest text of each entity."""
        seen: set[int] = set()
        for entry in reversed(entries):
            segment = Segment.open(self._folder, entry, self._header.dtype)
            for number in range(segment.num_documents - 1, -1, -1):
                document = segment.document(number)
                if document.entity not in seen:
                    seen.add(document.entity)
                    yield document


class _Progress:
    """Says now and then, while large pools are built, how far they are."""

    EVERY_SEC = 10.0

    def __init__(self) -> None:
        self.num_pools = 0
        self._num_tokens = 0
        self._started = self._said = time.monotonic()

    def add(self, num_tokens: int) -> None:
        """Count a segment's tokens."""
        self._num_tokens += num_tokens
        now = time.monotonic()
        if now - self._said < self.EVERY_SEC:
            return
        self._said = now
        rate = self._num_tokens / (now - self._started)
        logger.info("pools: %d built, %d tokens indexed, %d a second", self.num_pools, self._num_tokens, rate)


class DocumentSample:
    """An even sample of all documents added, of at most `max_tokens`; bounded in memory.

    An entity is in the sample if its key, a hash, lies below a limit that falls as documents come in. So
    every pool is represented by the same share, and the same entities are drawn night after night.
    """

    def __init__(self, max_tokens: int) -> None:
        self.documents: list[Document] = []
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._key_limit = 2**64

    def add(self, document: Document) -> None:
        """Consider `document`."""
        if document.entity >= self._key_limit:
            return
        # A copy: a view would keep the whole batch alive that the text was read in.
        self.documents.append(Document(document.entity, np.array(document.token_ids)))
        self._num_tokens += len(document.token_ids) + 1
        while self._num_tokens > self._max_tokens:
            self._key_limit = self._key_limit * 3 // 4
            self.documents = [kept for kept in self.documents if kept.entity < self._key_limit]
            self._num_tokens = sum(len(kept.token_ids) + 1 for kept in self.documents)


def _check_extensible(previous: Datastore, header: StoreHeader) -> None:
    if previous.header.tokenizer_hash != header.tokenizer_hash:
        raise DatastoreError(f"{previous.folder}: written with another tokenizer, cannot be extended")
    if previous.header.vocab_size != header.vocab_size:  # its dtype may differ: its files are linked as is
        raise DatastoreError(
            f"{previous.folder}: vocabulary size {previous.header.vocab_size}, cannot be extended to "
            f"{header.vocab_size}"
        )


def _is_folder_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _next_number(entries: list[SegmentEntry]) -> int:
    return max((int(entry.name) for entry in entries), default=-1) + 1


def _searched_once(documents: Iterable[Document]) -> Iterator[Document]:
    """`documents`, of which those that repeat the text of an earlier one are not searched.

    Texts are told apart by a hash of 64 bits.
    """
    seen: set[int] = set()
    for document in documents:
        text = hash(document.token_ids.tobytes())
        if text in seen:
            # A copy: a view would keep the whole batch alive that the text was read in.
            yield Document(document.entity, np.array(document.token_ids), is_searched=False)
        else:
            seen.add(text)
            yield document


def _batched_by_tokens(documents: Iterable[Document], max_tokens: int) -> Iterator[list[Document]]:
    """Batches of at most `max_tokens`, or of one document; all of a batch are searched, or none."""
    batches: dict[bool, list[Document]] = {True: [], False: []}
    sizes = {True: 0, False: 0}
    for document in documents:
        which, length = document.is_searched, len(document.token_ids) + 1
        if batches[which] and sizes[which] + length > max_tokens:
            yield batches[which]
            batches[which], sizes[which] = [], 0
        batches[which].append(document)
        sizes[which] += length
    yield from filter(None, batches.values())


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them: a version then costs only what is new in it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
