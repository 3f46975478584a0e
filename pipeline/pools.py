"""The datastore between runs: which version is in force, and how a run's knowledge extends it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from drafters.datastore import Datastore, DatastoreBuilder, DatastoreError, Document, StoreHeader
from pipeline.errors import CorruptPartError
from pipeline.storage.files import write_text
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import knowledge_dataset

logger = logging.getLogger(__name__)


def version_in_force(layout: DatasetLayout) -> str | None:
    """Name of the datastore version that the next run drafts from; None if there is none."""
    try:
        return layout.current_datastore.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def usable_version(layout: DatasetLayout, tokenizer_hash: str, vocab_size: int) -> str | None:
    """`version_in_force`, if this model's tokenizer wrote it; otherwise None, and a line in the log."""
    version = version_in_force(layout)
    if version is None:
        return None
    try:
        Datastore.open(layout.datastore / version, tokenizer_hash, vocab_size)
    except DatastoreError as error:
        logger.warning("starting from empty pools: %s", error)
        return None
    return version


def extend_pools(
    layout: DatasetLayout, run: RunLayout, previous: str | None, tokenizer_hash: str, vocab_size: int
) -> str:
    """Build the version named after the run from version `previous` and the run's knowledge; put it in force.

    Does nothing if the run's version is there already. A crash leaves the old version in force.
    """
    version = run.root.name
    if not (layout.datastore / version).exists():
        _build(layout, run, version, previous, tokenizer_hash, vocab_size)
    if version_in_force(layout) != version:
        write_text(version + "\n", layout.current_datastore)
    return version


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
        store = Datastore.open(layout.datastore / previous, tokenizer_hash, vocab_size) if previous else None
        header = StoreHeader(version, vocab_size, tokenizer_hash, source=run.root.name)
        builder = DatastoreBuilder(layout.datastore, header, store)
        for kind, group in _pools(knowledge):
            builder.add(kind, group, _documents(knowledge, kind, group))
        builder.finish(_calibration(run))
    except DatastoreError as error:
        raise CorruptPartError(str(error)) from error


def _pools(knowledge: ds.Dataset) -> list[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for batch in knowledge.to_batches(columns=["kind", "group"]):
        table = pa.Table.from_batches([batch]).group_by(["kind", "group"]).aggregate([])
        found.update(zip(table["kind"].to_pylist(), table["group"].to_pylist(), strict=True))
    return sorted(found)


def _documents(knowledge: ds.Dataset, kind: str, group: str) -> Iterator[Document]:
    """The pool's texts, batch by batch."""
    rows = (pc.field("kind") == kind) & (pc.field("group") == group)
    for batch in knowledge.to_batches(columns=["entity_id", "token_ids"], filter=rows):
        ids = batch["token_ids"]
        values = ids.values.to_numpy(zero_copy_only=False)
        offsets = ids.offsets.to_numpy()
        for row, entity_id in enumerate(batch["entity_id"].to_pylist()):
            yield Document.of(entity_id, np.asarray(values[offsets[row] : offsets[row + 1]]))


def _calibration(run: RunLayout) -> dict[str, object] | None:
    path: Path = run.calibration
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
