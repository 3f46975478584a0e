import json
import logging
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, CorruptPartError, DataError
from pipeline.generate.contract import ShardResult
from pipeline.storage import parts
from pipeline.storage.files import sha256_of_file, write_json
from pipeline.storage.layout import RunLayout
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings

SHARDS = ["item-00000", "item-00001", "item-00002"]


@pytest.fixture
def plan():
    return make_plan(num_shards=3, rows_per_shard=4)


@pytest.fixture
def layout(tmp_path, plan):
    layout = RunLayout(tmp_path / "run")
    commit(layout, plan)
    return layout


def rows_of(plan, shard):
    return plan.filter(pc.equal(plan["shard"], shard))


def commit(layout, plan, failing=frozenset({"5"}), fingerprint=FINGERPRINT):
    for shard in SHARDS:
        result = make_result(shard, rows_of(plan, shard), failing, fingerprint)
        parts.commit_part(layout, result, fingerprint)


def edit_manifest(layout, name, /, **changes):
    path = layout.part_manifest(name)
    write_json(json.loads(path.read_text()) | changes, path)


def test_committed_parts_are_finished_and_their_rows_are_read_back(layout, plan):
    assert parts.finished_shards(layout, FINGERPRINT, plan) == set(SHARDS)
    knowledge = parts.read_knowledge(layout)
    assert knowledge["entity_id"].to_pylist() == [str(n) for n in range(12) if n != 5]
    failures = parts.read_failures(layout, SHARDS)
    assert failures["entity_id"].to_pylist() == ["5"]
    assert not list(layout.root.rglob(".tmp-*"))


def test_a_shard_whose_rows_all_failed_is_finished(tmp_path, plan):
    layout = RunLayout(tmp_path / "run")
    result = make_result(SHARDS[0], rows_of(plan, SHARDS[0]), frozenset("0123"))
    parts.commit_part(layout, result, FINGERPRINT)
    assert parts.finished_shards(layout, FINGERPRINT, plan) == {SHARDS[0]}
    assert parts.read_knowledge(layout).num_rows == 0


def test_a_manifest_tells_when_and_where_its_shard_was_written(layout, plan):
    began = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    result = make_result(SHARDS[0], rows_of(plan, SHARDS[0]))
    parts.commit_part(layout, result, FINGERPRINT, began, "node-7")
    manifest = parts.read_manifest(layout, SHARDS[0])
    assert (manifest.started_at, manifest.node) == (began, "node-7")
    assert manifest.finished_at.tzinfo is not None and manifest.finished_at > began


def test_a_manifest_of_an_earlier_release_is_read(layout, plan):
    content = json.loads(layout.part_manifest(SHARDS[0]).read_text())
    for name in ("started_at", "finished_at", "node"):
        del content[name]
    write_json(content, layout.part_manifest(SHARDS[0]))
    assert parts.read_manifest(layout, SHARDS[0]).started_at is None
    assert parts.finished_shards(layout, FINGERPRINT, plan) == set(SHARDS)


def test_an_empty_run_has_no_rows(tmp_path, plan):
    layout = RunLayout(tmp_path / "run")
    assert parts.finished_shards(layout, FINGERPRINT, plan) == set()
    assert parts.read_knowledge(layout).num_rows == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite_part(layout, knowledge):
    """A part and a manifest that agree with each other, but not with the plan."""
    pq.write_table(knowledge, layout.part(SHARDS[1]))
    sha256 = sha256_of_file(layout.part(SHARDS[1]))
    edit_manifest(layout, SHARDS[1], sha256=sha256, num_rows=knowledge.num_rows)


def with_column(layout, name, values):
    table = pq.read_table(layout.part(SHARDS[1]))
    return table.set_column(table.column_names.index(name), table.schema.field(name), [values])


CORRUPTIONS = {
    "manifest missing": lambda layout: layout.part_manifest(SHARDS[1]).unlink(),
    "manifest truncated": lambda layout: truncate(layout.part_manifest(SHARDS[1])),
    "manifest empty": lambda layout: layout.part_manifest(SHARDS[1]).write_text(""),
    "manifest not utf-8": lambda layout: layout.part_manifest(SHARDS[1]).write_bytes(b'{"shard": "\xff"}'),
    "manifest not an object": lambda layout: layout.part_manifest(SHARDS[1]).write_text("[]"),
    "manifest of another shard": lambda layout: edit_manifest(layout, SHARDS[1], shard="item-00000"),
    "manifest of another format": lambda layout: edit_manifest(layout, SHARDS[1], format_version=2),
    "manifest with an unknown key": lambda layout: edit_manifest(layout, SHARDS[1], more=1),
    "wrong number of rows": lambda layout: edit_manifest(layout, SHARDS[1], num_rows=4),
    "failed rows forgotten": lambda layout: edit_manifest(layout, SHARDS[1], failed=[]),
    "failed rows malformed": lambda layout: edit_manifest(layout, SHARDS[1], failed=[{"line": "x"}]),
    "failed row of another entity": lambda layout: edit_manifest(
        layout, SHARDS[1], failed=[{"stage": "generate", "entity_id": "9", "kind": "item", "reason": "x"}]
    ),
    "part missing": lambda layout: layout.part(SHARDS[1]).unlink(),
    "part truncated": lambda layout: truncate(layout.part(SHARDS[1])),
    "part with a flipped bit": lambda layout: flip_a_byte(layout.part(SHARDS[1])),
    "part that is no Parquet": lambda layout: (
        layout.part(SHARDS[1]).write_text("x"),
        edit_manifest(layout, SHARDS[1], sha256=sha256_of_file(layout.part(SHARDS[1]))),
    ),
    "part with an entity twice": lambda layout: rewrite_part(
        layout, with_column(layout, "entity_id", ["4", "6", "6"])
    ),
    "part with an entity of another shard": lambda layout: rewrite_part(
        layout, with_column(layout, "entity_id", ["4", "6", "8"])
    ),
    "part with users in place of items": lambda layout: rewrite_part(
        layout, with_column(layout, "kind", ["item", "item", "user"])
    ),
    "part that answers another prompt": lambda layout: rewrite_part(
        layout, with_column(layout, "prompt_hash", ["hash-4", "hash-6", "other"])
    ),
    "part with a row less": lambda layout: rewrite_part(layout, pq.read_table(layout.part(SHARDS[1]))[:2]),
    "part without a column": lambda layout: rewrite_part(
        layout, pq.read_table(layout.part(SHARDS[1])).drop_columns("prompt_hash")
    ),
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupt_part_is_reported_by_name_and_done_again(layout, plan, caplog, corrupt):
    corrupt(layout)
    with caplog.at_level(logging.WARNING):
        assert parts.finished_shards(layout, FINGERPRINT, plan) == {SHARDS[0], SHARDS[2]}
    reported = [record.getMessage() for record in caplog.records]
    expected = 0 if not layout.part_manifest(SHARDS[1]).exists() else 1
    assert len(reported) == expected and all(SHARDS[1] in line and "\n" not in line for line in reported)

    parts.commit_part(layout, make_result(SHARDS[1], rows_of(plan, SHARDS[1])), FINGERPRINT)
    assert parts.finished_shards(layout, FINGERPRINT, plan) == set(SHARDS)
    assert parts.read_knowledge(layout).num_rows == 12


def test_other_settings_under_the_same_run_id_are_named(tmp_path, plan):
    layout = RunLayout(tmp_path / "run")
    commit(layout, plan, fingerprint="old")
    before = run_settings().model_dump(mode="json")
    before["acceptance"]["top_k"] = 3
    before["cluster"]["num_workers"] = 7
    write_json({"fingerprint": "old", "settings": before}, layout.manifest)
    with pytest.raises(ConfigError, match=r"run_id=run: .*\(acceptance.top_k: 3, now 2\); choose") as caught:
        parts.finished_shards(layout, FINGERPRINT, plan, run_settings())
    assert "num_workers" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"acceptance\.top_k"):
        parts.reject_reused_run(layout, FINGERPRINT, run_settings())


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"fingerprint": "third", "settings": {}}'])
def test_a_reused_run_id_is_refused_when_its_settings_are_unknown(tmp_path, plan, manifest):
    layout = RunLayout(tmp_path / "run")
    commit(layout, plan, fingerprint="old")
    if manifest is not None:
        layout.manifest.write_text(manifest)
    with pytest.raises(ConfigError, match="run_id=run: it holds parts that other settings or data made;"):
        parts.finished_shards(layout, FINGERPRINT, plan, run_settings())


def test_parts_that_the_plan_lacks_are_refused(layout):
    with pytest.raises(ConfigError, match=r"2 parts that the plan lacks, for example item-00001"):
        parts.finished_shards(layout, FINGERPRINT, make_plan(num_shards=1, rows_per_shard=4))


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(layout, plan):
    for folder in (layout.root, layout.parts):
        (folder / ".tmp-abc-item-00000.parquet").write_text("half")
        (folder / ".tmp-abc-item-00000.json").write_text("half")
    assert parts.finished_shards(layout, FINGERPRINT, plan) == set(SHARDS)
    parts.remove_leftovers(layout)
    assert not list(layout.root.rglob(".tmp-*"))
    assert len(list(layout.parts.iterdir())) == 6


def test_knowledge_with_an_entity_in_two_parts_is_refused(layout, plan):
    rows = make_result(SHARDS[0], rows_of(plan, SHARDS[0])).knowledge
    parts.commit_part(layout, ShardResult(SHARDS[1], rows, parts.FAILED.empty_table()), FINGERPRINT)
    with pytest.raises(DataError, match="4 ids stand more than once"):
        parts.read_knowledge(layout)


def test_knowledge_of_a_broken_part_is_refused(layout):
    truncate(layout.part(SHARDS[2]))
    with pytest.raises(CorruptPartError, match=r"item-00002\.parquet"):
        parts.read_knowledge(layout)


def test_parts_from_before_a_nullable_column_are_read_with_nulls(layout):
    for shard in SHARDS:
        older = pq.read_table(layout.part(shard)).drop_columns("parsed")
        pq.write_table(older, layout.part(shard))
    rows = parts.read_knowledge(layout)
    assert rows["parsed"].null_count == rows.num_rows == 11


def test_a_result_that_breaks_the_schema_is_not_committed(tmp_path, plan):
    layout = RunLayout(tmp_path / "run")
    result = make_result(SHARDS[0], rows_of(plan, SHARDS[0]))
    doubled = pa.concat_tables([result.knowledge, result.knowledge[:1]])
    with pytest.raises(DataError, match="shard item-00000"):
        parts.commit_part(layout, ShardResult(SHARDS[0], doubled, result.failed), FINGERPRINT)
    assert not layout.parts.exists()


def test_shards_keep_the_order_of_the_plan_and_all_rows(plan):
    shuffled = plan.take([9, 0, 4, 1, 10, 5, 2, 11, 6, 3, 8, 7])
    planned = parts.planned_shards(shuffled)
    assert list(planned) == ["item-00002", "item-00000", "item-00001"]
    ids = {shard: sorted(map(int, rows["entity_id"].to_pylist())) for shard, rows in planned.items()}
    assert ids == {"item-00000": [0, 1, 2, 3], "item-00001": [4, 5, 6, 7], "item-00002": [8, 9, 10, 11]}


def test_the_same_id_may_be_a_user_and_an_item_but_no_entity_is_planned_twice(plan):
    users = plan.set_column(2, plan.schema.field("kind"), [["user"] * 12])
    users = users.set_column(0, plan.schema.field("shard"), [["user-00000"] * 12])
    both = pa.concat_tables([plan, users])
    assert len(parts.planned_shards(both)) == 4
    with pytest.raises(DataError, match="plan: 12 ids"):
        parts.planned_shards(pa.concat_tables([both, plan]))
