import json

import pyarrow as pa
import pytest

from pipeline.bench_settings import BenchSettings
from pipeline.benchmark.workload import TEXTS, build_pools, num_fillers, num_texts, pool_version
from pipeline.benchmark.workload import _split as split
from pipeline.generate.engine import TextRequest

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
    workload = split(REQUESTS, BenchSettings(concurrencies=[1, 16], num_repeats=3, num_warmup=8))
    assert [len(texts) for texts in workload.rounds] == [24, 24, 24]
    assert (len(workload.fillers), len(workload.warmup)) == (48, 8)
    sets = [*workload.rounds, workload.fillers, workload.warmup, workload.pool]
    ids = [request.entity_id for requests in sets for request in requests]
    assert len(ids) == len(set(ids)) == len(REQUESTS)
    assert workload.outsiders.isdisjoint(request.entity_id for request in workload.pool)


@pytest.mark.parametrize("change", [{"entity_id": "2"}, {"group": "h"}, {"token_ids": [5, 6, 8]}])
def test_other_texts_never_meet_the_pools_of_an_earlier_bench(tmp_path, change):
    first = build_pools(texts(), tmp_path, 100, "t" * 16)
    second = build_pools(texts(**change), tmp_path, 100, "t" * 16)
    assert first != second
    assert build_pools(texts(), tmp_path, 100, "t" * 16) == first
    assert json.loads((first / "header.json").read_text())["version"] == pool_version(texts())
