"""`retry_failed=true`: the failed rows of finished shards are generated again, the others stay as they are.

The part of such a shard counts until the new one, the old rows and the new together, replaces it; so a
retry that is killed loses nothing.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorruptPartError
from pipeline.generate.contract import ShardResult, WorkerSpec
from pipeline.schemas import KNOWLEDGE, conform
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import parquet_dataset
from pipeline.storage.parts import check_part, read_manifest


def shards_with_failures(layout: RunLayout, finished: Iterable[str]) -> set[str]:
    """Those of the `finished` shards that have failed rows."""
    return {shard for shard in finished if read_manifest(layout, shard).failed}


def rows_to_keep(layout: RunLayout, shard: str, planned: pa.Table, spec: WorkerSpec) -> pa.Table:
    """The rows (schema KNOWLEDGE) of `shard` that are written and stay; none unless a retry is asked for.

    `planned`: the shard's rows of the plan. A part that is broken, or of other settings, is not kept.
    """
    none = KNOWLEDGE.empty_table()
    if not (spec.settings.retry_failed and layout.part_manifest(shard).exists()):
        return none
    try:
        manifest = read_manifest(layout, shard)
        check_part(layout, manifest, planned)
    except CorruptPartError:
        return none
    if manifest.fingerprint != spec.fingerprint:
        return none
    rows = parquet_dataset([layout.part(shard)], KNOWLEDGE).to_table()
    return conform(rows, KNOWLEDGE, f"part of {shard}", unique=("kind", "entity_id"))


def rows_to_write(planned: pa.Table, kept: pa.Table) -> pa.Table:
    """The `planned` rows of one shard that are not among the `kept` ones."""
    if not kept.num_rows:
        return planned
    is_kept = pc.is_in(planned["entity_id"], value_set=kept["entity_id"].combine_chunks())
    return planned.filter(pc.invert(is_kept))


def joined(kept: pa.Table, result: ShardResult) -> ShardResult:
    """`result` with the `kept` rows before its own."""
    if not kept.num_rows:
        return result
    return ShardResult(result.shard, pa.concat_tables([kept, result.knowledge]), result.failed)
