"""Runs on disk as a generation leaves them, in small."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.generate.time_series import append_line
from pipeline.schemas import DECODING_COUNTS, FAILED, KNOWLEDGE
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings

BEGIN = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
ROWS = 4  # of a shard
HOSTILE = 'It\'s </pre><script>alert("x")</script> & <img src=x> ```fence``` | pipe\x1b[31m \u202egnp.exe'


@dataclass
class RunBuilder:
    """Writes the files of one run; `shards` of four texts, each of `num_tokens` tokens."""

    dataset: DatasetLayout
    run_id: str = "night-1"
    begin: datetime = BEGIN
    num_shards: int = 3
    finished: int = 3
    num_tokens: int = 8
    seconds: list[float] = field(default_factory=lambda: [10.0, 30.0, 20.0])
    failing: frozenset[str] = frozenset()
    texts: dict[str, str] = field(default_factory=dict)  # entity -> text
    shared: dict[str, str] = field(default_factory=dict)  # entity -> the one whose text it has

    @property
    def layout(self) -> RunLayout:
        return self.dataset.run(self.run_id)

    @property
    def end(self) -> datetime:
        return self.begin + timedelta(minutes=10)

    def build(self, has_summary: bool = True) -> RunLayout:
        plan = make_plan(self.num_shards, ROWS)
        write_parquet(plan, self.layout.plan)
        for number in range(self.finished):
            self.commit(plan, number)
        failed = [
            {"stage": "generate", "entity_id": e, "kind": "item", "reason": f"KeyError: token {e}"}
            for e in sorted(self.failing)
        ]
        manifest = {
            "run_id": self.run_id,
            "num_planned": plan.num_rows,
            "datastore_version": "v0",
            "settings": run_settings().model_dump(mode="json"),
        }
        if has_summary:
            manifest["summary"] = {"unfinished": {}}
            write_parquet(pa.Table.from_pylist(failed, schema=FAILED), self.layout.failed)
        write_json(manifest, self.layout.manifest)
        return self.layout

    def commit(self, plan: pa.Table, number: int) -> None:
        shard = f"item-{number:05}"
        rows = plan.slice(number * ROWS, ROWS)
        result = make_result(shard, rows, self.failing)
        table = pa.Table.from_pylist(
            [self.written(row) for row in result.knowledge.to_pylist()], schema=KNOWLEDGE
        )
        began = self.begin + timedelta(minutes=number)
        result = type(result)(shard, table, result.failed)
        commit_part(self.layout, result, FINGERPRINT, began, f"node-{number % 2}")
        path = self.layout.part_manifest(shard)
        finished = began + timedelta(seconds=self.seconds[number])
        write_json(json.loads(path.read_text()) | {"finished_at": finished.isoformat()}, path)

    def written(self, row: dict) -> dict:
        tokens = list(range(self.num_tokens))
        text = self.texts.get(row["entity_id"], row["text"])
        origin = self.shared.get(row["entity_id"])
        written = row | {
            "text": text,
            "token_ids": tokens,
            "num_output_tokens": len(tokens),
            "generated_at": self.begin + timedelta(minutes=1),
            "shared_from": origin,
        }
        return written if origin is None else written | dict.fromkeys(DECODING_COUNTS, 0)

    def line(self, number: int, session: str = "a", **values) -> None:
        """Line `number` of the time series; each stands ten seconds after the one before."""
        totals = {
            "time": (self.begin + timedelta(seconds=10 * number)).isoformat(),
            "session": session,
            "decode_sec": 10.0 * number,
            "num_rows_done": number,
            "num_workers": 2,
            "num_decoded_tokens": 1000 * number,
            "num_engine_steps": 100 * number,
            "drafter_sec": 0.5 * number,
            "num_running": 8,
            "price": 0.25,
            "sources": {"pool": {"num_draft_tokens": 40 * number, "num_accepted_tokens": 30 * number}},
        }
        append_line(self.layout.progress, json.dumps(totals | values) + "\n")

    def night(self, **values) -> None:
        content = {
            "run_id": self.run_id,
            "started_at": self.begin.isoformat(),
            "ended_at": self.end.isoformat(),
            "status": "done",
            "previous_version": "v0",
            "version": "v1",
            "steps": [{"name": "generate", "seconds": 500, "status": "done"}],
            "counts": {
                "user": {"planned": 0, "new": 0, "changed": 0, "carried": 9, "gone": 2},
                "item": {"planned": 12, "new": 5, "changed": 7, "carried": 100, "gone": 1},
            },
            "by_change": {
                "new": {"num_rows": 5, "num_output_tokens": 40, "num_decode_steps": 40},
                "changed": {"num_rows": 7, "num_output_tokens": 56, "num_decode_steps": 14},
            },
            "decode_sec": 100.0,
            "saved_decode_sec": 900.0,
        }
        write_json(content | values, self.layout.night)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetLayout:
    return DatasetLayout.of(tmp_path, "toy")


@pytest.fixture
def builder(dataset: DatasetLayout) -> RunBuilder:
    return RunBuilder(dataset)
