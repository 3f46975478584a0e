"""Pools that plain runs extend: all texts of a run that went on, and what its texts saw."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from drafters.datastore import Datastore
from drafters.datastore.format import HEADER, StoreHeader, entity_key
from pipeline.errors import CorruptPartError
from pipeline.generate.contract import ShardResult
from pipeline.pools import extend_pools, usable_version, verify_pools, version_in_force
from pipeline.schemas import KNOWLEDGE
from pipeline.storage.files import remove_folder
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import data_path
from pipeline.storage.parts import commit_part
from pipeline.storage.pool_copies import local_pools
from tests.generation import FINGERPRINT, make_plan, make_result

VOCAB_SIZE = 64
EARLY, LATE = datetime(1998, 1, 1, tzinfo=UTC), datetime(1998, 4, 1, tzinfo=UTC)
PLAN = make_plan(3, 2)


@pytest.fixture
def layout(tmp_path):
    return DatasetLayout(tmp_path / "toy")


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A dataset in fsspec's store in memory."""
    monkeypatch.setenv("LASER_CACHE_DIR", str(tmp_path / "cache"))
    folder = data_path("memory://bucket/data")
    yield DatasetLayout(folder / "toy")
    remove_folder(folder)


def commit(layout, run_id, number, failing=(), cutoff=None):
    """Commit shard `number` of the run; the texts are of users if they have a `cutoff`."""
    shard = f"item-{number:05}"
    result = make_result(shard, PLAN.slice(2 * number, 2), frozenset(failing))
    rows = result.knowledge.to_pylist()
    rows = [row | {"token_ids": [int(row["entity_id"]), *row["token_ids"][1:]]} for row in rows]
    if cutoff is not None:
        rows = [row | {"kind": "user", "history_cutoff": cutoff} for row in rows]
    knowledge = pa.Table.from_pylist(rows, KNOWLEDGE)
    commit_part(layout.run(run_id), ShardResult(shard, knowledge, result.failed), FINGERPRINT)


def extend(layout, run_id, previous=None):
    return extend_pools(layout, layout.run(run_id), previous, "0", VOCAB_SIZE)


def usable(layout, cutoff=None):
    return usable_version(layout, "0", VOCAB_SIZE, cutoff)


def store_in_force(layout):
    return Datastore.open(local_pools(layout.datastore / version_in_force(layout)), "0", VOCAB_SIZE)


def pooled(layout):
    """The entities of the pool in force, as often as they stand in it."""
    names = {entity_key(str(number)): str(number) for number in range(PLAN.num_rows)}
    pool = store_in_force(layout).pool("item", "drama")
    return sorted(names[document.entity] for segment in pool for document in segment.documents())


def tokens_of(folder):
    """The only file of tokens of the pool in the version `folder`."""
    return folder / "item" / "drama" / "000000.tokens"


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def test_texts_that_saw_later_events_do_not_draft_for_an_earlier_cutoff(layout, caplog):
    commit(layout, "run", 0, cutoff=LATE)
    version = extend(layout, "run")
    assert usable(layout) == usable(layout, LATE) == version
    assert usable(layout, EARLY) is None
    assert "saw events after history_cutoff" in caplog.text


def test_pools_saw_what_the_version_saw_that_they_extend(layout):
    commit(layout, "late", 0, cutoff=LATE)
    commit(layout, "early", 1, cutoff=EARLY)
    extend(layout, "early", extend(layout, "late"))
    assert usable(layout, EARLY) is None
    version = extend(layout, "early")
    assert usable(layout, EARLY) == version


def test_texts_of_items_saw_no_events(layout):
    commit(layout, "run", 0)
    version = extend(layout, "run")
    assert usable(layout, EARLY) == version


def test_pools_of_an_earlier_release_do_not_draft_for_a_cutoff(layout, caplog):
    commit(layout, "run", 0)
    version = extend(layout, "run")
    header = layout.datastore / version / HEADER
    content = json.loads(header.read_text())
    del content["history_cutoff"]
    header.write_text(json.dumps(content))
    assert usable(layout) == version
    assert usable(layout, LATE) is None
    assert "not known" in caplog.text
    commit(layout, "next", 1)
    extend(layout, "next", version)
    assert usable(layout, LATE) is None


def test_pools_of_a_run_that_went_on_hold_all_its_texts_once(layout):
    commit(layout, "before", 0)
    before = extend(layout, "before")
    commit(layout, "run", 1, failing={"3"})
    first = extend(layout, "run", before)
    assert pooled(layout) == ["0", "1", "2"]
    commit(layout, "run", 1)
    commit(layout, "run", 2)
    second = extend(layout, "run", before)
    assert pooled(layout) == ["0", "1", "2", "3", "4", "5"]
    assert second != first and version_in_force(layout) == second


def test_pools_of_a_run_that_changed_nothing_are_not_built_again(layout):
    commit(layout, "run", 0)
    version = extend(layout, "run")
    header = layout.datastore / version / HEADER
    built_at = header.stat().st_mtime_ns
    assert extend(layout, "run") == version
    assert header.stat().st_mtime_ns == built_at


def test_a_damaged_copy_is_fetched_again_and_the_store_keeps_its_version(stored):
    commit(stored, "run", 0)
    version = extend(stored, "run")
    folder = stored.datastore / version
    copy = local_pools(folder)
    tokens = tokens_of(copy)
    whole = tokens.read_bytes()

    for damaged in (whole[:-1], bytes(len(whole))):
        tokens.write_bytes(damaged)
        assert usable(stored) == version
        assert tokens.read_bytes() == whole
        tokens.write_bytes(damaged)
        header = (folder / HEADER).stat().st_mtime
        assert extend(stored, "run") == version
        assert (folder / HEADER).stat().st_mtime == header, "the store's version was replaced"
        assert tokens.read_bytes() == whole
    truncate(tokens)
    assert pooled(stored) == ["0", "1"], "a worker's copy is mended too"


def test_what_is_damaged_in_the_store_is_told_although_a_copy_is_whole_and_is_built_again(stored):
    commit(stored, "run", 0)
    version = extend(stored, "run")
    copy = local_pools(stored.datastore / version)
    tokens = tokens_of(stored.datastore / version)
    truncate(tokens)
    with pytest.raises(CorruptPartError, match=tokens.name):
        verify_pools(stored, version)
    assert not copy.exists(), "a copy of what is damaged is not kept"
    assert extend(stored, "run") == version
    verify_pools(stored, version)
    assert StoreHeader.read(copy).version == version and pooled(stored) == ["0", "1"]
