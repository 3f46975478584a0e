import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import outline
from pipeline.acceptance_settings import AcceptanceOverrideSettings
from pipeline.generate import shard_server
from pipeline.generate.shard_server import ShardServer
from pipeline.outline import outline_plan, shards_in_full
from pipeline.plan import make_plan, shards_of
from pipeline.plan_file import write_shards
from pipeline.schemas import DECODING_COUNTS, PROMPTS
from pipeline.settings import AcceptanceSettings, DrafterSettings
from pipeline.sharing import origins, scope_of
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import read_table
from pipeline.storage.parts import read_manifest
from tests.generation import ToyWorker, make_result, make_spec, run_settings
from tests.unit.drafters.builders import build, document

STRICT = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)


def everywhere(kind, group):
    return "kind"


def prompts_of(*rows) -> pa.Table:
    """`rows`: (kind, group, prompt, max_tokens); ids are numbered."""
    return pa.Table.from_pylist(
        [
            {
                "entity_id": f"e{number:02}", "kind": kind, "group": group, "prompt": prompt,
                "prompt_token_ids": [1], "prompt_hash": f"hash of {prompt}", "max_tokens": max_tokens,
            }
            for number, (kind, group, prompt, max_tokens) in enumerate(rows)
        ],
        PROMPTS,
    )  # fmt: skip


def planned(prompts, shard_size) -> dict[str, list[str]]:
    """The entities of each shard."""
    plan = pa.concat_tables(shards_in_full(outline_plan(prompts, shard_size, scope_of=everywhere), prompts))
    return {name: rows["entity_id"].to_pylist() for name, rows in shards_of(plan).items()}


def test_rows_share_a_text_if_all_that_decides_it_is_equal():
    prompts = prompts_of(
        ("item", "a", "p", 8), ("item", "a", "q", 8), ("item", "b", "p", 8), ("user", "a", "p", 8),
        ("item", "a", "p", 9), ("user", "b", "p", 8),
    )  # fmt: skip
    assert origins(prompts, everywhere).tolist() == [0, 1, 0, 3, 4, 3]


def test_each_group_shares_as_its_rule_says():
    prompts = prompts_of(*[("item", group, "p", 8) for group in "abcabcabc"])
    none_before = np.ones(9, dtype=bool)
    scopes = {"a": "kind", "b": "group", "c": "row"}
    assert origins(prompts, lambda kind, group: scopes[group], none_before).tolist() == [
        0, 1, 2, 0, 1, 5, 0, 1, 8,
    ]  # fmt: skip
    assert origins(prompts, lambda kind, group: scopes[group]).tolist() == [0, 1, 2, 0, 4, 5, 0, 7, 8]
    assert origins(prompts.slice(0, 0), everywhere).tolist() == []


def test_relaxed_rows_whose_entities_have_an_earlier_text_stay_alone():
    prompts = prompts_of(*[("item", "a", "p", 8)] * 4)
    is_first_text = np.array([False, True, False, True])
    assert origins(prompts, lambda kind, group: "group", is_first_text).tolist() == [0, 1, 2, 1]
    assert origins(prompts, everywhere, is_first_text).tolist() == [0, 0, 0, 0], (
        "strict: drafts decide nothing"
    )


@pytest.mark.parametrize(
    ("changes", "sampling", "expected"),
    [
        ({"acceptance": STRICT}, {}, "kind"),
        ({}, {}, "group"),
        ({"drafter": DrafterSettings(name="none", max_draft_tokens=0)}, {}, "kind"),  # nothing is relaxed
        ({"acceptance": STRICT}, {"temperature": 0.7}, "row"),
        ({}, {"temperature": 0.7}, "row"),
    ],
)
def test_the_scope_follows_from_what_decides_a_text(changes, sampling, expected):
    found = run_settings().model_copy(update=changes)
    model = found.model
    model = model.model_copy(update={"sampling": model.sampling.model_copy(update=sampling)})
    assert scope_of(found.model_copy(update={"model": model}))("item", "drama") == expected


def test_a_group_with_a_rule_of_its_own_has_a_scope_of_its_own():
    override = AcceptanceOverrideSettings(kind="item", group="drama", top_k=1)
    acceptance = run_settings().acceptance.model_copy(update={"overrides": [override]})
    scope = scope_of(run_settings().model_copy(update={"acceptance": acceptance}))
    assert [scope("item", "drama"), scope("item", "war"), scope("user", "drama")] == [
        "kind",
        "group",
        "group",
    ]


def test_equal_prompts_stand_in_one_shard_which_is_cut_by_its_texts():
    """Nine rows, four texts: two shards of two texts, not five of at most two rows."""
    texts = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "p"), ("b", "r"), ("b", "s"), ("b", "s")]
    prompts = prompts_of(*[("item", group, text, 8) for group, text in [*texts, ("a", "q"), ("b", "p")]])
    assert planned(prompts, 2) == {
        "item-00000": ["e00", "e02", "e03", "e08", "e01", "e07"],
        "item-00001": ["e04", "e05", "e06"],
    }


def test_a_shard_holds_a_bounded_number_of_rows(monkeypatch):
    monkeypatch.setattr(outline, "MAX_SHARD_ROWS", 4)
    prompts = prompts_of(*[("item", "a", text, 8) for text in "pqqqrrrrrrrrrs"])
    sizes = [len(ids) for ids in planned(prompts, 3).values()]
    assert sizes == [4, 3, 3, 4]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["item", "user"]), st.sampled_from("abc"), st.sampled_from("pqrs"))),
    st.integers(1, 5),
)
def test_plans_with_shared_texts_are_complete_and_hold_each_text_once(rows, shard_size):
    prompts = prompts_of(*[(*row, 8) for row in rows])
    plan = outline_plan(prompts, shard_size, scope_of=everywhere)
    assert sorted(plan["entity_id"].to_pylist()) == sorted(prompts["entity_id"].to_pylist())
    shards = [shard.select(["kind", "prompt_hash"]).to_pylist() for shard in shards_of(plan).values()]
    texts = [(row["kind"], row["prompt_hash"]) for shard in shards for row in shard]
    per_shard = [{(row["kind"], row["prompt_hash"]) for row in shard} for shard in shards]
    assert sum(map(len, per_shard)) == len(set(texts))
    assert all(len(of_shard) <= shard_size for of_shard in per_shard)


def test_a_plan_of_different_prompts_is_the_same_as_without_sharing():
    prompts = prompts_of(*[("item", "ab"[n % 2], f"p{n * 7 % 30:02}", 8) for n in range(30)])
    plan = outline_plan(prompts, 4, scope_of=everywhere)
    assert plan.equals(outline_plan(prompts, 4))
    assert pa.concat_tables(shards_in_full(plan, prompts)).equals(make_plan(prompts, 4))


class CountingWorker(ToyWorker):
    """Notes what it was asked to write; a row that says so ends it."""

    def __init__(self, spec, finished_parts) -> None:
        super().__init__(spec, finished_parts)
        self.asked: list[str] = []

    def run_shard(self, shard, rows):
        self.asked += rows["entity_id"].to_pylist()
        if "poison" in rows["prompt"].to_pylist():
            raise ValueError("planted")
        failing = frozenset(row["entity_id"] for row in rows.to_pylist() if row["prompt"] in ("refused",))
        return make_result(shard, rows, failing)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_server, "redirect_output", lambda _: None)  # this process is the tests'
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    layout = RunLayout(tmp_path)

    def server(texts: str, **changes) -> ShardServer:
        """Of one shard with prompts like `texts`, a word for each row."""
        prompts = prompts_of(*[("item", "drama", text, 8) for text in texts.split()])
        write_shards(shards_in_full(outline_plan(prompts, 99, scope_of=everywhere), prompts), layout.plan)
        spec = make_spec(layout)
        strict = spec.settings.model_copy(update={"acceptance": STRICT} | changes)
        spec = replace(spec, settings=strict, shares_texts=True)
        return ShardServer(CountingWorker, spec, layout, [])

    return server


def rows_by_entity(server) -> dict[str, dict]:
    table = read_table(server._layout.part("item-00000"))
    return {row["entity_id"]: row for row in table.to_pylist()}


def failed_rows(server) -> dict[str, str]:
    failed = read_manifest(server._layout, "item-00000").failed
    return {row["entity_id"]: row["reason"] for row in failed}


def test_a_text_is_generated_once_and_its_rows_say_so(serve):
    server = serve("p q p p")
    receipt = server.run_shard("item-00000", {}, False)
    assert (receipt.error, receipt.num_rows, receipt.num_failed, receipt.num_shared) == (None, 4, 0, 2)
    assert server._worker.asked == ["e00", "e01"]
    rows = rows_by_entity(server)
    origin, shared = rows["e00"], rows["e03"]
    assert [rows[name]["shared_from"] for name in ("e00", "e01", "e02", "e03")] == [None, None, "e00", "e00"]
    assert {name: shared[name] for name in DECODING_COUNTS} == dict.fromkeys(DECODING_COUNTS, 0)
    own = {"entity_id", "shared_from", *DECODING_COUNTS}
    assert {name: value for name, value in shared.items() if name not in own} == {
        name: value for name, value in origin.items() if name not in own
    }


def test_where_a_text_fails_all_its_rows_fail(serve):
    server = serve("refused q refused")
    receipt = server.run_shard("item-00000", {}, False)
    assert (receipt.num_rows, receipt.num_failed) == (1, 2)
    assert failed_rows(server) == {"e00": "planted", "e02": "planted"}


def test_a_text_that_ends_its_worker_is_known_by_its_number_among_those_generated(serve):
    """Row by row `q` is the first text, `poison` the second; both its rows fail with it."""
    server = serve("s poison q poison s")
    assert server.run_shard("item-00000", {}, True).error.endswith("planted")
    assert (server._layout.parts / ".tmp-row-of-item-00000").read_text() == "0"
    receipt = server.run_shard("item-00000", {0: "it ended the worker"}, True)
    assert (receipt.error, receipt.num_rows, receipt.num_failed) == (None, 3, 2)
    assert server._worker.asked == ["e01", "e02", "e00"], "by prompt: poison, q, s"
    assert failed_rows(server) == dict.fromkeys(["e01", "e03"], "it ended the worker")


def test_failed_texts_that_are_retried_are_shared_again(serve):
    first = serve("refused q refused refused")
    first.run_shard("item-00000", {}, False)
    server = serve("refused q refused refused", retry_failed=True)
    server._worker.run_shard = lambda shard, rows: make_result(shard, rows)
    receipt = server.run_shard("item-00000", {}, False)
    assert (receipt.num_rows, receipt.num_failed, receipt.num_shared) == (4, 0, 2)
    shared = {name: row["shared_from"] for name, row in rows_by_entity(server).items()}
    assert shared == {"e00": None, "e01": None, "e02": "e00", "e03": "e00"}


def test_relaxed_texts_are_shared_among_entities_without_an_earlier_one(serve, tmp_path):
    relaxed = run_settings().acceptance
    server = serve("p p p p p", acceptance=relaxed)
    assert server.run_shard("item-00000", {}, False).num_shared == 4
    build(tmp_path / "pools", "v1", {("item", "war"): [document("e01", 1, 2), document("e03", 3)]})
    server = serve("p p p p p", acceptance=relaxed)
    server._spec = replace(server._spec, datastore=str(tmp_path / "pools" / "v1"))
    assert server.run_shard("item-00000", {}, False).num_shared == 2
    assert server._worker.asked == ["e00", "e01", "e03"]
    shared = {name: row["shared_from"] for name, row in rows_by_entity(server).items()}
    assert shared == {"e00": None, "e01": None, "e02": "e00", "e03": None, "e04": "e00"}


def test_origins_of_many_rows_are_found_in_chunks(monkeypatch):
    monkeypatch.setattr("pipeline.sharing.ROWS_AT_ONCE", 3)
    dice = np.random.default_rng(1)
    texts = [f"p{number}" for number in dice.integers(0, 12, 40)]
    prompts = prompts_of(*[("item", "a", text, 8) for text in texts])
    pieces = pa.concat_tables([prompts.slice(start, 7) for start in range(0, 40, 7)])
    assert origins(pieces, everywhere).tolist() == [texts.index(text) for text in texts]
