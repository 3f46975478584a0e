"""The datastore between runs: which version is in force, and what it is built from.

Before anything is published each run extends the version that `datastore/CURRENT` names by its texts.
A run that goes on extends the version that it began with once more, by all its texts.
With a snapshot in force, the datastore in force is the one that was built from that snapshot.

The pools of a snapshot are built anew, not by appending to the last version: a pool then holds exactly
the texts in force, no document of an entity that changed or left. Appending would save little: the users
that a night changes are spread over all user pools, so all of those are rewritten anyway.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from drafters.datastore import Datastore, DatastoreBuilder, DatastoreError, Document, StoreHeader
from drafters.datastore.format import HEADER
from pipeline.errors import CorruptPartError
from pipeline.publish.snapshot import SnapshotFile, files_dataset, read_columns, snapshot_in_force
from pipeline.schemas import KNOWLEDGE
from pipeline.storage.files import read_json, remove_folder, sha256_of_file, sha256_of_json, write_text
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.node_cache import built
from pipeline.storage.parts import NUM_REQUESTS, committed_shards, knowledge_dataset
from pipeline.storage.pool_copies import has_pools, local_pools, verified_pools, verify_stored

logger = logging.getLogger(__name__)
DIGEST_CHARS = 8
NO_EVENTS = datetime.min.replace(tzinfo=UTC)
"""The `history_cutoff` of pools without any text that saw an event."""


def version_in_force(layout: DatasetLayout) -> str | None:
    """Name of the datastore version that the next run drafts from; None if there is none."""
    snapshot = snapshot_in_force(layout)
    return _current_version(layout) if snapshot is None else snapshot.datastore_version


def _current_version(layout: DatasetLayout) -> str | None:
    """What `datastore/CURRENT` names; it counts while no snapshot is published."""
    try:
        return layout.current_datastore.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def usable_version(
    layout: DatasetLayout, tokenizer_hash: str, vocab_size: int, cutoff: datetime | None = None
) -> str | None:
    """`version_in_force` if a run may draft from it; otherwise None, and a line in the log.

    It may not if another tokenizer wrote it, if a file is truncated or altered, or if texts in it saw
    events that `cutoff` hides, or may have: versions of earlier releases do not say what their texts saw.
    """
    version = version_in_force(layout)
    if version is None:
        return None
    try:
        store = Datastore.open(verified_pools(layout.datastore / version), tokenizer_hash, vocab_size)
    except (DatastoreError, CorruptPartError) as error:
        logger.warning("starting from empty pools: %s", error)
        return None
    seen = _seen_by_texts(layout, store.header)
    if cutoff is None or (seen is not None and seen <= cutoff):
        return version
    reason = "it is not known which events those in force saw"
    if seen is not None:
        reason = "those in force saw events after history_cutoff"
    logger.warning("starting from empty pools: %s", reason)
    return None


def _seen_by_texts(layout: DatasetLayout, header: StoreHeader) -> datetime | None:
    """The moment before which all events lie that texts in force saw; None: not known."""
    snapshot = snapshot_in_force(layout)
    return header.history_cutoff if snapshot is None else snapshot.history_cutoff or NO_EVENTS


def answered_prompts(layout: DatasetLayout, run_id: str) -> pa.ChunkedArray:
    """Hashes of the prompts of all texts in force; before anything is published, of all other runs' texts."""
    column = "prompt_hash"
    snapshot = snapshot_in_force(layout)
    if snapshot is not None:
        return read_columns(layout, snapshot, [column])[column]
    runs = [RunLayout(path) for path in layout.runs.glob("*") if path.name != run_id]
    tables = [knowledge_dataset(run).to_table(columns=[column]) for run in runs if committed_shards(run)]
    return pa.concat_tables([KNOWLEDGE.empty_table().select([column]), *tables])[column]


@dataclass(frozen=True)
class PoolModel:
    """The model whose texts become pools. Rows of another model or revision are left out."""

    name: str
    revision: str
    tokenizer_hash: str
    vocab_size: int


def build_snapshot_pools(
    layout: DatasetLayout,
    version: str,
    files: list[SnapshotFile],
    model: PoolModel,
    calibration: dict[str, Any] | None,
) -> str:
    """Build the datastore of snapshot `version` from its `files`; its name. It is not put in force.

    The name holds a digest of what went in, so a version of that name which is there already is this one,
    unless its files were damaged since: then it is built again.
    """
    content = [sorted((file.path, file.sha256) for file in files), model.tokenizer_hash, calibration]
    name = f"{version}-{sha256_of_json(content)[:DIGEST_CHARS]}"
    if _has_whole_pools(layout, name):
        return name
    pools: dict[tuple[str, str], list[SnapshotFile]] = {}
    for file in files:
        pools.setdefault((file.kind, file.group), []).append(file)
    header = StoreHeader(name, model.vocab_size, model.tokenizer_hash, source=version)
    of_model = (pc.field("model") == model.name) & (pc.field("model_revision") == model.revision)
    try:
        with built(layout.datastore / name, HEADER) as root:
            builder = DatastoreBuilder(root, header)
            for (kind, group), own_files in sorted(pools.items()):
                builder.add(kind, group, _documents(files_dataset(layout, version, own_files), of_model))
            builder.finish(calibration)
    except DatastoreError as error:
        raise CorruptPartError(str(error)) from error
    return name


def verify_pools(layout: DatasetLayout, version: str) -> None:
    """Compare datastore `version` with its checksums; `CorruptPartError` names what is wrong.

    What counts is what is stored, not a copy: see `verify_stored`.
    """
    verify_stored(layout.datastore / version)


def _has_whole_pools(layout: DatasetLayout, version: str) -> bool:
    """Whether datastore `version` is there; one that is damaged is removed."""
    if not has_pools(layout.datastore / version):
        return False
    try:
        verify_pools(layout, version)
    except CorruptPartError as error:
        logger.warning("these pools are built again: %s", error)
        remove_folder(layout.datastore / version)
        return False
    return True


def extend_pools(
    layout: DatasetLayout, run: RunLayout, previous: str | None, tokenizer_hash: str, vocab_size: int
) -> str:
    """Build a version from version `previous` and the run's knowledge; put it in force, and return its name.

    `previous`: what the run began with, also if it went on since. The name holds the run's and a digest of
    what went in: if a version of that name is there, and whole, it is this one. A crash leaves the old
    version in force. Only for a dataset of which no snapshot is published.
    """
    version = f"{run.root.name}-{_digest(run, previous, tokenizer_hash)}"
    if not _has_whole_pools(layout, version):
        _build(layout, run, version, previous, tokenizer_hash, vocab_size)
    if _current_version(layout) != version:
        write_text(version + "\n", layout.current_datastore)
    return version


def _digest(run: RunLayout, previous: str | None, tokenizer_hash: str) -> str:
    """Of the parts (their manifests hold their checksums), and of whatever else goes into the run's pools."""
    manifests = [run.part_manifest(shard) for shard in committed_shards(run)]
    with ThreadPoolExecutor(NUM_REQUESTS) as threads:
        parts = list(threads.map(sha256_of_file, manifests))
    content = [parts, previous, tokenizer_hash, read_calibration(run.calibration)]
    return sha256_of_json(content)[:DIGEST_CHARS]


def _build(
    layout: DatasetLayout,
    run: RunLayout,
    version: str,
    previous: str | None,
    tokenizer_hash: str,
    vocab_size: int,
) -> None:
    knowledge = knowledge_dataset(run)
    try:
        store = _open(layout, previous, tokenizer_hash, vocab_size) if previous else None
        header = StoreHeader(
            version,
            vocab_size,
            tokenizer_hash,
            source=run.root.name,
            history_cutoff=_latest_cutoff(knowledge, store),
        )
        with built(layout.datastore / version, HEADER) as root:
            builder = DatastoreBuilder(root, header, store)
            for kind, group in _pools(knowledge):
                rows = (pc.field("kind") == kind) & (pc.field("group") == group)
                builder.add(kind, group, _documents(knowledge, rows))
            builder.finish(read_calibration(run.calibration))
    except DatastoreError as error:
        raise CorruptPartError(str(error)) from error


def _open(layout: DatasetLayout, version: str, tokenizer_hash: str, vocab_size: int) -> Datastore:
    return Datastore.open(local_pools(layout.datastore / version), tokenizer_hash, vocab_size)


def _pools(knowledge: ds.Dataset) -> list[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for batch in knowledge.to_batches(columns=["kind", "group"]):
        table = pa.Table.from_batches([batch]).group_by(["kind", "group"]).aggregate([])
        found.update(zip(table["kind"].to_pylist(), table["group"].to_pylist(), strict=True))
    return sorted(found)


def _latest_cutoff(knowledge: ds.Dataset, previous: Datastore | None) -> datetime | None:
    """Of the texts of both; None if `previous` does not know its own."""
    before = NO_EVENTS if previous is None else previous.header.history_cutoff
    if before is None:
        return None
    batches = knowledge.to_batches(columns=["history_cutoff"])
    found = [pc.max(batch["history_cutoff"]).as_py() for batch in batches]
    return max([before, *(latest.astimezone(UTC) for latest in found if latest is not None)])


def _documents(knowledge: ds.Dataset, rows: pc.Expression) -> Iterator[Document]:
    """The texts of `rows`, batch by batch."""
    for batch in knowledge.to_batches(columns=["entity_id", "token_ids"], filter=rows):
        ids = batch["token_ids"]
        values = ids.values.to_numpy(zero_copy_only=False)
        offsets = ids.offsets.to_numpy()
        for row, entity_id in enumerate(batch["entity_id"].to_pylist()):
            yield Document.of(entity_id, np.asarray(values[offsets[row] : offsets[row + 1]]))


def read_calibration(path: Path) -> dict[str, Any] | None:
    """What drafters learned, None if there is no file at `path`; `CorruptPartError` if it is unreadable."""
    return read_json(path, "unreadable calibration")
