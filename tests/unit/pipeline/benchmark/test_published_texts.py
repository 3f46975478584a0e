"""Published texts as the pool of the bench: those of other entities, of this model and prompt set only."""

from contextlib import nullcontext

import pytest

from pipeline.benchmark.workload import TEXTS, Workload, published_texts
from pipeline.errors import ConfigError
from pipeline.generate.engine import TextRequest
from pipeline.models import ModelSource
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.storage.layout import DatasetLayout
from tests.generation import run_settings
from tests.publishing import data_tables, entities, finished_run, settings_of

USERS = ("u1", "u2", "u3", "u4", "u5", "u6")
ITEMS = ("u1", "i2")  # an item may have the id of a user


@pytest.fixture
def layout(tmp_path):
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, USERS, ITEMS)
    return layout


def publish(layout, **changes):
    rows = [*entities("user", *USERS), *entities("item", *ITEMS)]
    run = finished_run(layout, "n1", rows, **changes)
    content = content_of_run(layout, run, snapshot_in_force(layout))
    publish_run(layout, run, settings_of(), content, lambda name: nullcontext())


def request(kind, entity_id):
    return TextRequest(f"{kind}-{entity_id}", kind, "g0", entity_id, [1, 2], 8)


def workloads(users, items=((), (), (), ())):
    """By kind, of the ids of one round, the next, the fillers and the warm-up."""

    def workload(kind, ids):
        first, second, fillers, warmup = ([request(kind, one) for one in some] for some in ids)
        return Workload([first, second], fillers, warmup, pool=[])

    return {"user": workload("user", users), "item": workload("item", items)}


def pool_of(layout, work, revision="1", prompt_set="kar"):
    settings = run_settings(data=str(layout.root.parent))
    knowledge = settings.knowledge.model_copy(update={"name": prompt_set})
    settings = settings.model_copy(update={"knowledge": knowledge})
    return published_texts(settings, ModelSource("/models/toy", revision, True, "0" * 64), work)


def test_no_text_of_an_entity_that_is_measured_fills_up_or_warms_up_is_in_the_pool(layout):
    publish(layout)
    pool = pool_of(layout, workloads(users=(["u1"], ["u2"], ["u3"], ["u4"])))
    assert pool.schema == TEXTS
    found = {(row["kind"], row["entity_id"]) for row in pool.to_pylist()}
    assert found == {("user", "u5"), ("user", "u6"), ("item", "u1"), ("item", "i2")}


def test_the_texts_are_those_in_force(layout):
    publish(layout, token=9)
    pool = pool_of(layout, workloads(users=(["u1"], [], [], [])))
    assert {tuple(ids) for ids in pool["token_ids"].to_pylist()} == {(9, 5, 6, 7, 9)}
    assert set(pool["group"].to_pylist()) == {"g0"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"revision": "2"}, "holds texts of another model than toy, 2"),
        ({"prompt_set": "once"}, "holds texts of another prompt set than once"),
    ],
)
def test_texts_of_another_model_or_prompt_set_are_refused_with_one_line(layout, asked, words):
    publish(layout)
    with pytest.raises(ConfigError, match=words) as refused:
        pool_of(layout, workloads(users=([], [], [], [])), **asked)
    assert "\n" not in str(refused.value) and "bench.use_published=true" in str(refused.value)


def test_where_nothing_is_published_the_way_to_it_is_named(layout):
    with pytest.raises(ConfigError, match="nothing is published yet; make nightly"):
        pool_of(layout, workloads(users=([], [], [], [])))
