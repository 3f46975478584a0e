"""What a night cost and saved, by what became of its entities."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.id_sets import ids_of
from pipeline.night.changes import PLANNED, ids_with
from pipeline.publish.content import Content
from pipeline.publish.snapshot import read_columns
from pipeline.schemas import DECODING_COUNTS
from pipeline.settings import KINDS
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import committed_shards, knowledge_dataset


def figures_by_change(run: RunLayout, content: Content) -> dict[str, dict[str, int]]:
    """For new and for changed entities: texts that the run wrote, and the sums of their counts."""
    columns = ["kind", "entity_id", *DECODING_COUNTS]
    if not committed_shards(run):
        return {change: dict.fromkeys(("num_rows", *DECODING_COUNTS), 0) for change in PLANNED}
    rows = knowledge_dataset(run).to_table(columns=columns)
    return {change: _sums(_rows_with(rows, content, change)) for change in PLANNED}


def _rows_with(rows: pa.Table, content: Content, change: str) -> pa.Table:
    parts = []
    for kind in KINDS:
        ids = ids_with(content.changes, kind, (change,))
        wanted = pc.and_(pc.equal(rows["kind"], kind), pc.is_in(rows["entity_id"], value_set=ids))
        parts.append(rows.filter(wanted))
    return pa.concat_tables(parts)


def _sums(rows: pa.Table) -> dict[str, int]:
    return {"num_rows": rows.num_rows} | {
        name: pc.sum(rows[name], min_count=0).as_py() for name in DECODING_COUNTS
    }


def carried_tokens(layout: DatasetLayout, content: Content) -> int:
    """Output tokens of the texts that were carried over because nothing about them changed."""
    if content.base is None:
        return 0
    rows = read_columns(layout, content.base, ["kind", "entity_id", "num_output_tokens"])
    total = 0
    for kind in KINDS:
        of_kind = rows.filter(pc.equal(rows["kind"], kind))
        carried = pc.is_in(ids_of(of_kind), value_set=ids_with(content.changes, kind, ("carried",)))
        total += pc.sum(of_kind["num_output_tokens"].filter(carried), min_count=0).as_py()
    return total
