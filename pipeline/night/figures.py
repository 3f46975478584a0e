"""What a night cost and saved, by what became of its entities."""

from dataclasses import dataclass

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

CARRIED = "carried"
NOTHING = dict.fromkeys(("num_rows", *DECODING_COUNTS), 0)


@dataclass(frozen=True)
class NightFigures:
    """Sums over the texts of the entities that a night was about."""

    by_change: dict[str, dict[str, int]]
    """Texts and decoding counts of new and changed entities; and for comparison of those carried over, of the
    kinds that were written, from when they were written."""
    num_carried_tokens: int  # of all texts that were carried over because nothing about them changed


def night_figures(layout: DatasetLayout, run: RunLayout, content: Content) -> NightFigures:
    """What the run wrote, and what it did not have to."""
    columns = ["kind", "entity_id", *DECODING_COUNTS]
    written = knowledge_dataset(run).to_table(columns=columns) if committed_shards(run) else None
    by_change = {
        change: _sums(_rows_with(written, content, change)) if written is not None else NOTHING
        for change in PLANNED
    }
    if content.base is None:
        return NightFigures(by_change | {CARRIED: NOTHING}, 0)
    carried = _rows_with(read_columns(layout, content.base, columns), content, CARRIED)
    kinds = written["kind"] if written is not None else pa.array([], pa.string())
    beside = carried.filter(pc.is_in(carried["kind"], value_set=pc.unique(kinds)))
    return NightFigures(
        by_change | {CARRIED: _sums(beside)}, pc.sum(carried["num_output_tokens"], min_count=0).as_py()
    )


def _rows_with(rows: pa.Table, content: Content, change: str) -> pa.Table:
    parts = []
    for kind in KINDS:
        of_kind = rows.filter(pc.equal(rows["kind"], kind))
        wanted = pc.is_in(ids_of(of_kind), value_set=ids_with(content.changes, kind, (change,)))
        parts.append(of_kind.filter(wanted))
    return pa.concat_tables(parts)


def _sums(rows: pa.Table) -> dict[str, int]:
    return {"num_rows": rows.num_rows} | {
        name: pc.sum(rows[name], min_count=0).as_py() for name in DECODING_COUNTS
    }
