"""Where the texts come from: the published snapshot in force, or one finished run."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError, DataError
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.schemas import conform
from pipeline.settings import Kind
from pipeline.storage.files import sha256_of_json
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet
from pipeline.storage.parts import committed_shards, read_manifest

HASH_BYTES = 16
TEXT_HASH = pa.binary(HASH_BYTES)
KEYS = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("text_hash", TEXT_HASH, nullable=False),  # blake2b of the text as UTF-8
    ]
)
BATCH_ROWS = 8_192


@dataclass(frozen=True)
class Source:
    """Knowledge texts. `name`: the snapshot's or the run's; `paths`: Parquet files, schema KNOWLEDGE.

    `digest` changes when the files do: a run that was not finished may have more parts by now.
    """

    name: str
    is_published: bool
    paths: list[Path]
    digest: str

    def texts(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """`entity_id` and `text` of all rows of `kind`, in the same order every time, in small batches."""
        for path in self.paths:
            for batch in _batches(path, ["kind", "entity_id", "text"]):
                rows = batch.filter(pc.equal(batch["kind"], kind))
                if rows.num_rows:
                    yield rows.select(["entity_id", "text"])

    def keys(self, kind: Kind) -> pa.Table:
        """Schema KEYS, in the order of `texts`; raises `DataError` if an entity stands twice."""
        batches = [
            pa.record_batch([rows["entity_id"], text_hashes(rows["text"])], schema=KEYS)
            for rows in self.texts(kind)
        ]
        table = pa.Table.from_batches(batches, schema=KEYS)
        return conform(table, KEYS, f"{kind}s of {self.name}", unique=("entity_id",)).combine_chunks()


def text_hashes(texts: pa.Array) -> pa.Array:
    """16 bytes for each text."""
    hashes = [hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest() for text in texts.to_pylist()]
    return pa.array(hashes, TEXT_HASH)


def find_source(layout: DatasetLayout, run_id: str | None) -> Source:
    """The texts of run `run_id`, or of the snapshot in force; `DataError` if there are none."""
    if run_id is not None:
        return _run_source(layout, run_id)
    snapshot = snapshot_in_force(layout)
    if snapshot is None:
        raise DataError(
            f"{layout.knowledge}: nothing is published; `make nightly` does it, or run_id=NAME takes a run"
        )
    folder = layout.snapshot(snapshot.version)
    return Source(
        name=snapshot.version,
        is_published=True,
        paths=[folder / file.path for file in snapshot.files],
        digest=sha256_of_json([file.sha256 for file in snapshot.files]),
    )


def _run_source(layout: DatasetLayout, run_id: str) -> Source:
    run = layout.run(run_id)
    shards = committed_shards(run)
    if not shards:
        raise DataError(f"run_id={run_id}: no finished shards in {run.parts}")
    return Source(
        name=run_id,
        is_published=False,
        paths=[run.part(shard) for shard in shards],
        digest=sha256_of_json([read_manifest(run, shard).sha256 for shard in shards]),
    )


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with open_parquet(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error
