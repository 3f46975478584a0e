"""Knowledge sets in halves: LASER drafts from the greedy texts of the other half, never from an own one."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from drafters.datastore import Datastore
from drafters.datastore.format import entity_key
from pipeline.evaluate import knowledge_sets
from pipeline.evaluate.knowledge_sets import describe_sets, entity_table, generate_sets, half_of
from pipeline.plan import write_plan
from pipeline.pools import usable_version
from pipeline.schemas import KNOWLEDGE
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings

IDS = [str(number) for number in range(9)]
ENTITIES = entity_table({"user": pa.array([]).cast(pa.string()), "item": pa.array(IDS)})
SOURCE = SimpleNamespace(path="/models/toy", tokenizer_hash="0")


def test_halves_share_nothing_and_are_of_one_size():
    entities = entity_table({"user": pa.array(IDS), "item": pa.array(IDS)})
    first, second = (half_of(entities, half).to_pylist() for half in ("a", "b"))
    key = ("kind", "entity_id")
    assert sorted(first + second, key=lambda row: [row[name] for name in key]) == sorted(
        entities.to_pylist(), key=lambda row: [row[name] for name in key]
    )
    for kind in ("user", "item"):
        assert sum(row["kind"] == kind for row in first) in (4, 5)
    shuffled = entities.take(pa.array(range(17, -1, -1)))
    assert half_of(shuffled, "a").sort_by("entity_id").equals(half_of(entities, "a").sort_by("entity_id"))


@pytest.fixture
def runs(monkeypatch):
    """Every run that was asked for: its id, its entities, and those that its pools held when it began."""
    seen = []

    def generate(settings, _, only):
        layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
        own = only["entity_id"].to_pylist()
        version, pooled = usable_version(layout, "0", 100), []
        if version is not None:
            store = Datastore.open(layout.datastore / version, "0", 100)
            pooled = [one for one in IDS if store.previous("item", entity_key(one)) is not None]
        seen.append((settings.run_id, own, pooled))
        run, plan = layout.run(settings.run_id), make_plan(1, len(IDS))
        plan = plan.filter(pc.is_in(plan["entity_id"], value_set=pa.array(own)))
        write_plan(plan, run.plan)
        result = make_result("item-00000", plan)
        place = KNOWLEDGE.get_field_index("datastore_version")
        versions = pa.array([version] * plan.num_rows, pa.string())
        rows = result.knowledge.set_column(place, KNOWLEDGE.field(place), versions)
        commit_part(run, type(result)(result.shard, rows, result.failed), FINGERPRINT)
        return SimpleNamespace(run_id=settings.run_id)

    monkeypatch.setattr(knowledge_sets, "generate_knowledge", generate)
    monkeypatch.setattr(knowledge_sets, "resolve_model", lambda *_: SOURCE)
    monkeypatch.setattr(knowledge_sets, "vocabulary_size", lambda *_: 100)
    return seen


def test_pools_begin_with_the_greedy_texts_of_the_other_half(runs, tmp_path):
    sets = generate_sets(run_settings(), ENTITIES, tmp_path, nullcontext)
    assert [name for name, _, _ in runs] == [
        f"{name}-{half}" for name in ("greedy", "strict", "relaxed") for half in ("a", "b")
    ]
    for name, own, pooled in runs:
        expected = [] if name.startswith("greedy") else sorted(set(IDS) - set(own))
        assert sorted(pooled) == expected
    assert all(sorted(rows["entity_id"].to_pylist()) == IDS for rows in sets.values())
    described = {one["knowledge"]: one["pools"] for one in describe_sets(sets)}
    assert described["greedy"] == "none" and described["strict"] == described["relaxed"]
    assert re.fullmatch(r"greedy-a-[0-9a-f]{8}, greedy-b-[0-9a-f]{8}", described["strict"])
