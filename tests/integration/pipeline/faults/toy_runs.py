"""Plans of toy shards, and what must hold of a run whatever happened to it."""

from pipeline.storage.files import write_parquet
from pipeline.storage.parts import finished_shards, read_knowledge
from tests.generation import FINGERPRINT, make_plan


def write_plan(layout, num_shards, rows_per_shard=4):
    plan = make_plan(num_shards, rows_per_shard)
    write_parquet(plan, layout.plan)
    return plan


def num_runs(layout, shard):
    """How often a `ToyWorker` began `shard`."""
    return len(list((layout.root / "trace").glob(f"{shard}.*")))


def assert_complete(layout, plan, failed=()):
    """Each entity once, apart from those in `failed`; nothing temporary is left."""
    knowledge = read_knowledge(layout)
    expected = set(plan["entity_id"].to_pylist()) - set(failed)
    assert sorted(knowledge["entity_id"].to_pylist()) == sorted(expected)
    assert finished_shards(layout, FINGERPRINT, plan) == set(plan["shard"].to_pylist())
    assert not list(layout.root.rglob(".tmp-*"))
