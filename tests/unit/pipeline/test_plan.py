import math
import random
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import outline
from pipeline.errors import ConfigError, CorruptPartError, DataError
from pipeline.outline import outline_plan, shards_in_full
from pipeline.plan import (
    is_plan_of,
    make_plan,
    read_plan,
    reject_later_events,
    select_entities,
    shards_of,
    write_plan,
)
from pipeline.plan_file import write_shards
from pipeline.schemas import GROUPS, NUMBERED_OUTLINE, OUTLINE, PLAN, PROMPTS
from pipeline.storage.files import sha256_of_rows


def prompts_of(rows) -> pa.Table:
    """`rows`: (kind, group, prompt); ids are numbered."""
    return pa.Table.from_pylist(
        [
            {
                "entity_id": f"e{number}",
                "kind": kind,
                "group": group,
                "prompt": prompt,
                "prompt_token_ids": [ord(character) for character in prompt],
                "prompt_hash": prompt,
                "max_tokens": 8,
                "history_cutoff": None,
            }
            for number, (kind, group, prompt) in enumerate(rows)
        ],
        PROMPTS,
    )


def shard_sizes(group_sizes, shard_size, kind="item"):
    rows = [(kind, f"g{n:03d}", "p") for n, size in enumerate(group_sizes) for _ in range(size)]
    return [rows.num_rows for rows in shards_of(make_plan(prompts_of(rows), shard_size)).values()]


ROWS = st.lists(
    st.tuples(st.sampled_from(["item", "user"]), st.sampled_from("abcdef"), st.text("xyz", max_size=3)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_shards_are_disjoint_complete_and_of_one_kind(rows, shard_size, shuffler):
    prompts = prompts_of(rows)
    plan = make_plan(prompts, shard_size)
    shards = shards_of(plan)

    together = pa.concat_tables([PLAN.empty_table(), *shards.values()])
    assert together.equals(plan)
    assert sorted(together["entity_id"].to_pylist()) == sorted(prompts["entity_id"].to_pylist())
    for kind in ("item", "user"):
        sizes = [rows.num_rows for name, rows in shards.items() if name.startswith(kind)]
        assert [name for name in shards if name.startswith(kind)] == [
            f"{kind}-{number:05d}" for number in range(len(sizes))
        ]
        if sum(sizes) >= shard_size / 2:
            assert all(shard_size // 2 <= size <= shard_size for size in sizes)
        else:
            assert len(sizes) <= 1
    for name, rows_of_shard in shards.items():
        assert set(rows_of_shard["kind"].to_pylist()) == {name.split("-")[0]}

    order = list(range(prompts.num_rows))
    shuffler.shuffle(order)
    assert make_plan(prompts.take(pa.array(order, pa.int64())), shard_size).equals(plan)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_rows_are_ordered_by_kind_group_prompt_and_id(rows):
    plan = make_plan(prompts_of(rows), 4)
    assert plan.schema.equals(PLAN)
    keys = [(r["kind"], r["group"], r["prompt"], r["entity_id"]) for r in plan.to_pylist()]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("group_sizes", "sizes"),
    [
        ([8, 8], [8, 8]),  # groups keep to themselves
        ([9], [5, 4]),  # evenly, not 8 and 1
        ([17], [6, 6, 5]),
        ([1, 1, 1, 1, 8], [4, 8]),  # tiny neighbours share a shard
        ([2, 8], [5, 5]),  # a tiny group joins the next one rather than make a shard of two rows
        ([8, 2], [5, 5]),  # or the one before, at the end
        ([4, 4], [4, 4]),  # half a shard is enough to stand alone
        ([3], [3]),
        ([], []),
    ],
)
def test_how_groups_become_shards(group_sizes, sizes):
    assert shard_sizes(group_sizes, shard_size=8) == sizes


@given(ROWS, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_shards_in_full_are_those_of_the_outline_however_many_are_read_at_once(rows, shard_size, at_once):
    prompts = prompts_of(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline, "ROWS_IN_FULL", at_once)
        patch.setattr(outline, "ROWS_PER_CHUNK", at_once)
        found = outline_plan(prompts, shard_size)
        shards = list(shards_in_full(found, prompts))
    assert found.schema.equals(NUMBERED_OUTLINE)
    whole = make_plan(prompts, shard_size)
    assert pa.concat_tables([PLAN.empty_table(), *shards]).equals(whole)
    assert [shard["shard"].unique().to_pylist() for shard in shards] == [[name] for name in shards_of(whole)]
    assert found.select(OUTLINE.names).equals(whole.select(OUTLINE.names))
    assert sha256_of_rows(found.select(OUTLINE.names)) == sha256_of_rows(whole.select(OUTLINE.names))


def test_only_the_wanted_rows_are_planned():
    prompts = prompts_of([("item", "a", text) for text in "zyxw"])
    found = outline_plan(prompts, 2, np.array([True, False, True, True]))
    assert found["entity_id"].to_pylist() == ["e3", "e2", "e0"] and found["row"].to_pylist() == [3, 2, 0]
    assert outline_plan(prompts, 2, np.zeros(4, dtype=bool)).equals(NUMBERED_OUTLINE.empty_table())


def test_a_plan_on_disk_is_compared_without_its_prompts(tmp_path):
    path = tmp_path / "plan.parquet"
    prompts = prompts_of([("user", "a", text) for text in "zyxw"])
    found = outline_plan(prompts, 2)
    with pytest.raises(DataError, match="there is no plan"):
        is_plan_of(found, path)
    write_shards(shards_in_full(found, prompts), path)
    assert is_plan_of(found, path)
    assert read_plan(path, OUTLINE).equals(found.select(OUTLINE.names))
    assert not is_plan_of(found.slice(1), path) and not is_plan_of(found.slice(0, 3), path)
    assert not is_plan_of(outline_plan(prompts, 4), path)
    changed = prompts.set_column(5, PROMPTS.field("prompt_hash"), pa.array(["h", "y", "x", "w"]))
    assert not is_plan_of(outline_plan(changed, 2), path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorruptPartError, match=str(path)):
        is_plan_of(found, path)


def test_a_large_group_is_spread_over_few_shards():
    sizes = shard_sizes([1000, 3, 500], shard_size=64)
    assert len(sizes) <= math.ceil(1000 / 64) + math.ceil(503 / 64)


def test_bad_input_is_refused():
    prompts = prompts_of([("item", "a", "x")])
    with pytest.raises(ConfigError, match=r"plan\.shard_size must be at least 1"):
        make_plan(prompts, 0)
    with pytest.raises(DataError, match="more than once"):
        make_plan(pa.concat_tables([prompts, prompts]), 4)
    with pytest.raises(DataError, match="kind 'album' is none of item, user"):
        make_plan(prompts_of([("album", "a", "x")]), 4)


def test_a_plan_survives_the_disk(tmp_path):
    rows = [(kind, group, text) for kind in ("item", "user") for group in "ab" for text in "xyz"]
    plan = make_plan(prompts_of(rows), 4)
    write_plan(plan, tmp_path / "plan.parquet")
    assert read_plan(tmp_path / "plan.parquet").equals(plan)


def test_the_file_is_the_same_whatever_the_order_of_rows(tmp_path):
    prompts = prompts_of([("user", "a", text) for text in "zyx"])
    for name, rows in (("one", prompts), ("other", prompts.take([2, 0, 1]))):
        write_plan(make_plan(rows, 2), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_missing_broken_or_contradictory_plan_is_named(tmp_path):
    path = tmp_path / "plan.parquet"
    with pytest.raises(DataError, match=f"{path}: there is no plan"):
        read_plan(path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorruptPartError, match=str(path)):
        read_plan(path)
    plan = make_plan(prompts_of([("item", "a", text) for text in "wxyz"]), 2)
    with pytest.raises(DataError, match="item-00000 do not stand together"):
        write_plan(plan.take([0, 2, 1, 3]), path)
    mixed = plan.set_column(2, "kind", pa.array(["item", "user", "item", "item"]))
    with pytest.raises(DataError, match="item-00000 holds more than one kind"):
        write_plan(mixed.cast(PLAN), path)
    with pytest.raises(DataError, match="more than once"):
        write_plan(pa.concat_tables([plan, plan.slice(3)]), path)


def groups_of(num_users: int, num_items: int, first: int = 0) -> pa.Table:
    ids = [f"{n}" for n in range(first, num_users)] + [f"{n}" for n in range(first, num_items)]
    kinds = ["user"] * (num_users - first) + ["item"] * (num_items - first)
    return pa.table([ids, kinds, ["g"] * len(ids)], schema=GROUPS)


def sample(groups, *args, **kwargs) -> set:
    rows = select_entities(groups, *args, **kwargs)
    return {(row["kind"], row["entity_id"]) for row in rows.to_pylist()}


def test_a_sample_has_the_same_number_of_each_kind_and_is_sorted():
    rows = select_entities(groups_of(500, 400), 200)
    assert rows["kind"].to_pylist() == ["item"] * 200 + ["user"] * 200
    keys = [(row["kind"], row["entity_id"]) for row in rows.to_pylist()]
    assert keys == sorted(keys)
    assert rows.schema.equals(GROUPS)


def test_a_larger_limit_contains_a_smaller_one_and_offset_continues_it():
    groups = groups_of(500, 400)
    small, large = sample(groups, 200), sample(groups, 300)
    assert small < large
    assert sample(groups, 100, offset=200) == large - small


def test_limit_all_or_beyond_the_catalogue_takes_everything():
    groups = groups_of(50, 40)
    assert select_entities(groups, "all").num_rows == select_entities(groups, 1000).num_rows == 90
    assert sample(groups, "all", offset=10) == sample(groups, 1000) - sample(groups, 10)
    assert select_entities(groups, 10, offset=45).num_rows == 5


def test_a_sample_depends_on_ids_and_seed_alone():
    groups = groups_of(500, 400)
    shuffled = list(range(groups.num_rows))
    random.Random(1).shuffle(shuffled)
    assert select_entities(groups.take(shuffled), 200).equals(select_entities(groups, 200))
    assert sample(groups, 200, seed=1) != sample(groups, 200)
    # The values pin the ranking: a changed hash would give every nightly run another sample.
    assert select_entities(groups, 3)["entity_id"].to_pylist() == ["169", "186", "335", "191", "194", "343"]


def test_a_growing_catalogue_keeps_its_sample():
    before, after = sample(groups_of(500, 500), 200), sample(groups_of(550, 550), 200)
    assert len(before & after) > 0.85 * len(before)  # new entities displace their share, no more


def test_a_prompt_that_shows_an_event_at_or_after_the_cutoff_is_refused():
    noon, later = datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 1, 13, tzinfo=UTC)
    rows = prompts_of([("user", "a", "x"), ("user", "a", "y"), ("item", "a", "z")]).to_pylist()
    rows[0] |= {"history_cutoff": later, "latest_event": noon}
    rows[1] |= {"history_cutoff": later, "latest_event": None}
    prompts = pa.Table.from_pylist(rows, PROMPTS)
    reject_later_events(prompts, None)
    reject_later_events(prompts, later)
    with pytest.raises(DataError, match="user e0: the prompt shows an event of 2024-01-01 12:00:00"):
        reject_later_events(prompts, noon)  # the run's cutoff is earlier than the rows say
    rows[0]["latest_event"] = later
    with pytest.raises(DataError, match="not before history_cutoff"):
        reject_later_events(pa.Table.from_pylist(rows, PROMPTS), None)
