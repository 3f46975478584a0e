import json

import pyarrow as pa
import pytest

from pipeline.bench_settings import BenchSettings
from pipeline.benchmark import workload
from pipeline.benchmark.workload import (
    TEXTS,
    build_pools,
    make_workloads,
    num_fillers,
    num_texts,
    pool_version,
)
from pipeline.benchmark.workload import _split as split
from pipeline.errors import DataError
from pipeline.generate.engine import TextRequest
from pipeline.prompts import RenderedPrompts
from pipeline.schemas import FAILED, GROUPS, PROMPTS
from pipeline.settings import KINDS
from tests.generation import run_settings

REQUESTS = [TextRequest(f"user-{n}", "user", "g", str(n), [1, 2], 8) for n in range(400)]


def texts(**changes):
    row = {"kind": "user", "group": "g", "entity_id": "1", "token_ids": [5, 6, 7]}
    return pa.Table.from_pylist([row | changes], schema=TEXTS)


@pytest.mark.parametrize(("concurrency", "count"), [(1, 6), (4, 12), (16, 24), (64, 64)])
def test_a_round_holds_at_least_a_full_batch_of_texts(concurrency, count):
    assert num_texts(concurrency) == count


@pytest.mark.parametrize(("concurrency", "count"), [(1, 3), (4, 12), (16, 48), (64, 96), (128, 128)])
def test_the_batch_has_texts_to_stay_full_with(concurrency, count):
    assert num_fillers(concurrency) == count


def test_no_entity_is_measured_twice_or_drafted_from():
    sample = split(REQUESTS, BenchSettings(concurrencies=[1, 16], num_repeats=3, num_warmup=8))
    assert [len(texts) for texts in sample.rounds] == [24, 24, 24]
    assert (len(sample.fillers), len(sample.warmup)) == (48, 8)
    sets = [*sample.rounds, sample.fillers, sample.warmup, sample.pool]
    ids = [request.entity_id for requests in sets for request in requests]
    assert len(ids) == len(set(ids)) == len(REQUESTS)
    assert sample.outsiders.isdisjoint(request.entity_id for request in sample.pool)


def test_of_entities_with_the_same_prompt_one_is_measured(monkeypatch):
    """Sixteen users, of whom every second one has the prompt of the one before."""
    rows = [
        {
            "entity_id": f"{kind}{number:02}", "kind": kind, "group": "g", "prompt": "p",
            "prompt_token_ids": [number // 2], "prompt_hash": str(number // 2), "max_tokens": 8,
        }
        for kind in KINDS
        for number in range(16)
    ]  # fmt: skip
    prompts = pa.Table.from_pylist(rows, PROMPTS)
    monkeypatch.setattr(workload, "read_tables", lambda settings: None)
    monkeypatch.setattr(workload, "group_tables", lambda *_: prompts.select(GROUPS.names))
    monkeypatch.setattr(workload, "render_chosen", lambda *_: RenderedPrompts(prompts, FAILED.empty_table()))
    bench = BenchSettings(concurrencies=[1], num_repeats=1, num_warmup=1, num_pool=99)
    with pytest.raises(DataError, match="item: 8 different prompts are too few, 10 are measured"):
        make_workloads(run_settings().model_copy(update={"bench": bench}), None)
    smaller = bench.model_copy(update={"num_pool": 0})
    monkeypatch.setattr(workload, "_num_fillers", lambda bench: 1)
    found = make_workloads(run_settings().model_copy(update={"bench": smaller}), None)["user"]
    requests = [*found.rounds[0], *found.fillers, *found.warmup, *found.pool]
    assert sorted(request.prompt_token_ids for request in requests) == [[n] for n in range(8)]


@pytest.mark.parametrize("change", [{"entity_id": "2"}, {"group": "h"}, {"token_ids": [5, 6, 8]}])
def test_other_texts_never_meet_the_pools_of_an_earlier_bench(tmp_path, change):
    first = build_pools(texts(), tmp_path, 100, "t" * 16)
    second = build_pools(texts(**change), tmp_path, 100, "t" * 16)
    assert first != second
    assert build_pools(texts(), tmp_path, 100, "t" * 16) == first
    assert json.loads((first / "header.json").read_text())["version"] == pool_version(texts())
