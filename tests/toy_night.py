"""A night like any other, in a process of its own, but for its worker, which has no engine.

    python -m tests.toy_night key=value ...

With $TOY_NIGHT_WAITS set it says `ready` and waits for a line before it begins. With $TOY_NIGHT_FILLS set to
a step and a folder, file `other` fills the folder's disk as the night enters the step. Entities named in the
file `failing` below the dataset's folder fail.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

import pipeline.road
from jobs.nightly import main
from pipeline.generate.contract import ShardResult
from pipeline.night.record import NightRecord
from pipeline.schemas import FAILED, KNOWLEDGE
from tests.generation import ToyWorker
from tests.publishing import knowledge_row

WAITS = "TOY_NIGHT_WAITS"
FILLS = "TOY_NIGHT_FILLS"
PAGE = bytes(4096)


class NightWorker(ToyWorker):
    """Writes the same few tokens about everyone."""

    seconds_per_shard = 0.2

    def __init__(self, spec, finished_parts) -> None:
        super().__init__(spec, finished_parts)
        self.spec = spec

    def run_shard(self, shard, rows) -> ShardResult:
        result = super().run_shard(shard, rows)
        named = Path(self.spec.run_log).parents[2] / "failing"
        failing = named.read_text().split() if named.exists() else []
        planned = rows.to_pylist()
        written = [self.row(row) for row in planned if row["entity_id"] not in failing]
        failed = [
            {"stage": "generate", "entity_id": row["entity_id"], "kind": row["kind"], "reason": "planted"}
            for row in planned
            if row["entity_id"] in failing
        ]
        return ShardResult(
            result.shard, pa.Table.from_pylist(written, KNOWLEDGE), pa.Table.from_pylist(failed, FAILED)
        )

    def row(self, planned: dict) -> dict:
        spec = self.spec
        return knowledge_row(
            planned,
            spec.run_id,
            3,
            fingerprint=spec.text_fingerprint,
            model=spec.settings.model.name,
            model_revision=spec.model_revision,
        )


def fill_the_disk_at(step: str, folder: Path) -> None:
    enter = NightRecord.step

    def entering(record: NightRecord, name: str):
        if name == step:
            with suppress(OSError), (folder / "other").open("wb", buffering=0) as file:
                while True:
                    file.write(PAGE)
        return enter(record, name)

    NightRecord.step = entering


if __name__ == "__main__":
    pipeline.road._worker_class = lambda: NightWorker
    if FILLS in os.environ:
        at, folder = os.environ[FILLS].split(maxsplit=1)
        fill_the_disk_at(at, Path(folder))
    if WAITS in os.environ:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
    sys.exit(main())
