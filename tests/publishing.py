"""Finished runs made by hand, for tests of publishing without an engine."""

from datetime import UTC, datetime

import pyarrow as pa

from pipeline.generate.contract import ShardResult
from pipeline.plan import make_plan, write_plan
from pipeline.schemas import FAILED, ITEMS, KNOWLEDGE, PROMPTS, USERS
from pipeline.settings import RunSettings
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.layout import DatasetLayout, RunLayout
from pipeline.storage.parts import commit_part
from tests.generation import run_settings

RUN_FINGERPRINT = "r" * 16
TEXT_FINGERPRINT = "t" * 16
NOW = datetime(2024, 1, 1, tzinfo=UTC)
CUTOFF = datetime(2023, 12, 1, tzinfo=UTC)


def settings_of(**changes) -> RunSettings:
    return run_settings().model_copy(update=changes)


def entities(kind: str, *ids: str, prompt: str = "p", group: str = "g0") -> list[dict]:
    return [
        {
            "entity_id": entity,
            "kind": kind,
            "group": group,
            "prompt": f"{prompt} {entity}",
            "prompt_token_ids": [1, 2],
            "prompt_hash": f"{prompt}-{entity}",
            "max_tokens": 8,
            "history_cutoff": CUTOFF if kind == "user" else None,
            "latest_event": datetime(2023, 11, 1, tzinfo=UTC) if kind == "user" else None,
        }
        for entity in ids
    ]


def knowledge_row(row: dict, run_id: str, token: int, **changes) -> dict:
    values = {
        "entity_id": row["entity_id"], "kind": row["kind"], "group": row["group"],
        "text": f"text {token} of {row['entity_id']}", "token_ids": [token, 5, 6, 7, token], "parsed": None,
        "prompt_hash": row["prompt_hash"], "num_prompt_tokens": 2, "num_output_tokens": 5,
        "num_draft_tokens": 4, "num_accepted_tokens": 3, "num_relaxed_tokens": 1, "num_decode_steps": 2,
        "finish_reason": "stop", "model": "toy", "model_revision": "1", "knowledge": "kar",
        "acceptance": "relaxed(k=2,p=0.1)", "datastore_version": None, "fingerprint": TEXT_FINGERPRINT,
        "run_id": run_id, "generated_at": NOW, "history_cutoff": row["history_cutoff"],
    }  # fmt: skip
    return values | changes


def finished_run(
    layout: DatasetLayout,
    run_id: str,
    rows: list[dict],
    token: int = 3,
    failing: tuple[str, ...] = (),
    **changes,
) -> RunLayout:
    """A run that wrote a text of `token` for each of `rows`, apart from the entities in `failing`."""
    run = layout.run(run_id)
    plan = make_plan(pa.Table.from_pylist(rows, schema=PROMPTS), shard_size=4)
    write_plan(plan, run.plan)
    for shard in plan["shard"].unique().to_pylist():
        planned = [row for row in plan.to_pylist() if row["shard"] == shard]
        written = [
            knowledge_row(row, run_id, token, **changes) for row in planned if row["entity_id"] not in failing
        ]
        failed = [
            {"stage": "generate", "entity_id": row["entity_id"], "kind": row["kind"], "reason": "planted"}
            for row in planned
            if row["entity_id"] in failing
        ]
        result = ShardResult(
            shard, pa.Table.from_pylist(written, KNOWLEDGE), pa.Table.from_pylist(failed, FAILED)
        )
        commit_part(run, result, RUN_FINGERPRINT, NOW, "here")
    write_json(
        {
            "run_id": run_id, "fingerprint": RUN_FINGERPRINT, "text_fingerprint": TEXT_FINGERPRINT,
            "model_revision": "1", "tokenizer_hash": "0" * 64, "vocab_size": 100,
            "settings": {"model": {"name": "toy"}, "history_cutoff": None},
            "summary": {"tokens_per_sec": 50.0, "decode_sec": 2.0},
        },
        run.manifest,
    )  # fmt: skip
    return run


def data_tables(layout: DatasetLayout, users: tuple[str, ...], items: tuple[str, ...]) -> None:
    """The tables of a dataset with these entities."""
    rows = [{"user_id": user, "attributes": []} for user in users]
    write_parquet(pa.Table.from_pylist(rows, USERS), layout.tables / "users.parquet")
    rows = [{"item_id": item, "title": item, "categories": [], "attributes": []} for item in items]
    write_parquet(pa.Table.from_pylist(rows, ITEMS), layout.tables / "items.parquet")
