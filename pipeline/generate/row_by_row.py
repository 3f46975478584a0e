"""The last attempt at a shard that keeps failing: one row after the other, so that the bad row is known.

Before each row its number goes to a file with a temporary name beside the parts. Whatever then happens,
an exception, a process that dies or one that hangs, the driver finds there which row it was. The driver
takes that row out of the shard, and it goes to failed.parquet with the reason.
"""

import logging
from pathlib import Path

import pyarrow as pa

from pipeline.generate.contract import ShardResult, Worker
from pipeline.schemas import FAILED, KNOWLEDGE
from pipeline.storage.files import TEMPORARY_PREFIX, write_text
from pipeline.storage.layout import RunLayout

logger = logging.getLogger(__name__)


def run_without(worker: Worker, shard: str, rows: pa.Table, bad_rows: dict[int, str]) -> ShardResult:
    """Run `rows` (schema PLAN) apart from `bad_rows` (row number -> reason), which fail with their reason."""
    if not bad_rows:
        return worker.run_shard(shard, rows)
    good = [number for number in range(rows.num_rows) if number not in bad_rows]
    return _with_failures(worker.run_shard(shard, rows.take(good)), rows, bad_rows)


def run_row_by_row(
    worker: Worker, layout: RunLayout, shard: str, rows: pa.Table, bad_rows: dict[int, str]
) -> ShardResult:
    """Like `run_without`, one row at a time; if a row stops the worker, `row_under_way` tells which."""
    results = []
    for number in range(rows.num_rows):
        if number not in bad_rows:
            write_text(str(number), _marker(layout, shard))
            results.append(worker.run_shard(shard, rows.slice(number, 1)))
    _marker(layout, shard).unlink(missing_ok=True)
    result = ShardResult(
        shard,
        pa.concat_tables([KNOWLEDGE.empty_table(), *(result.knowledge for result in results)]),
        pa.concat_tables([FAILED.empty_table(), *(result.failed for result in results)]),
    )
    return _with_failures(result, rows, bad_rows)


def row_under_way(layout: RunLayout, shard: str) -> int | None:
    """The row of `shard` that ran when its worker stopped, if it ran row by row; told once.

    None also if the disk or store of the run cannot be asked.
    """
    marker = _marker(layout, shard)
    try:
        number = int(marker.read_text())
        marker.unlink(missing_ok=True)
    except (FileNotFoundError, ValueError):
        return None
    except Exception as error:  # noqa: BLE001  each store raises classes of its own
        logger.warning("%s: cannot be read, so the row is not known: %s", marker, error)
        return None
    return number


def _marker(layout: RunLayout, shard: str) -> Path:
    return layout.parts / f"{TEMPORARY_PREFIX}row-of-{shard}"


def _with_failures(result: ShardResult, rows: pa.Table, bad_rows: dict[int, str]) -> ShardResult:
    failed = [
        {
            "stage": "generate",
            "entity_id": rows["entity_id"][number].as_py(),
            "kind": rows["kind"][number].as_py(),
            "reason": reason,
        }
        for number, reason in sorted(bad_rows.items())
    ]
    table = pa.concat_tables([result.failed, pa.Table.from_pylist(failed, schema=FAILED)])
    return ShardResult(result.shard, result.knowledge, table)
