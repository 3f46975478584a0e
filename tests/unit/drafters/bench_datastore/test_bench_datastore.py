import json

import numpy as np
import pytest

from drafters.bench_datastore.__main__ import LARGE_VOCABULARY, SMALL_VOCABULARY, main
from drafters.bench_datastore.measure import build, open_and_touch, propose_laser
from drafters.bench_datastore.outside_propose import build_many_pools, start_and_teach
from drafters.bench_datastore.report import table, targets
from drafters.bench_datastore.texts import TEXT_TOKENS, TextGenerator
from drafters.bench_datastore.workload import TAUGHT_SEED, PoolSpec, recordings
from drafters.datastore.format import entity_key
from drafters.replay.laser_method import KIND, TOKENIZER


def test_texts_are_the_same_every_time_and_others_for_another_seed():
    one, again = (list(TextGenerator(5000, 3).texts(40)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert {len(text) for text in one} == {TEXT_TOKENS} and len(one) == 40
    assert not np.array_equal(one[0], next(TextGenerator(5000, 4).texts(1)))
    assert min(t.min() for t in one) >= 0 and max(t.max() for t in one) < 5000


def test_texts_share_phrases_as_knowledge_texts_do():
    grams = [
        {tuple(gram) for gram in np.lib.stride_tricks.sliding_window_view(text, 8).tolist()}
        for text in TextGenerator(5000, 3).texts(2000)
    ]
    pool = set.union(*grams[:-50])
    shared = np.mean([len(g & pool) / len(g) for g in grams[-50:]])
    assert 0.1 < shared < 0.6


def test_the_command_writes_its_rows_and_says_what_is_met(tmp_path, capsys):
    report = tmp_path / "bench" / "datastore.json"
    assert main(["--pool-tokens", "5000", "--vocab-size", "5000", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())
    fields = ("bytes_per_token", "build_tokens_per_sec", "propose_us_per_request", "start_us_per_request")
    assert rows[0]["method"] == "laser" and all(row["pool_tokens"] == 5000 for row in rows)
    assert all(row[field] > 0 for row in rows for field in fields)
    assert rows[0]["open_ms"] > 0 and rows[0]["teach_us_per_token"] > 0
    for tree in rows[1:]:  # absent where its package is
        assert tree["bytes_per_token"] == tree["resident_bytes_per_token"] and tree["open_ms"] is None
    shown = capsys.readouterr().out
    assert "not measured  seconds to build 10 M tokens" in shown and str(report) in shown


@pytest.mark.parametrize(("vocab_size", "bytes_per_token"), [(SMALL_VOCABULARY, 6), (LARGE_VOCABULARY, 8)])
def test_a_small_pool_is_measured(tmp_path, vocab_size, bytes_per_token):
    spec = PoolSpec(20_000, vocab_size)
    built = build(tmp_path, spec)
    assert built["num_tokens"] == spec.num_texts * (TEXT_TOKENS + 1)
    assert bytes_per_token < built["bytes_per_token"] < bytes_per_token + 0.5
    assert built["store_bytes_per_token"] > 1.9 * built["bytes_per_token"], "with the domain pool's copies"
    opened = open_and_touch(tmp_path, spec)
    assert opened["resident_bytes_per_token"] == pytest.approx(built["bytes_per_token"], rel=0.2)
    assert 0 < opened["open_ms"] < 50
    measured = propose_laser(tmp_path, spec)
    assert measured["drafted_per_step"] > 0 and measured["tokens_per_step"] > 1.0
    assert measured["propose_ms_64_requests"] == pytest.approx(64e-3 * measured["propose_us_per_request"])
    assert (tmp_path / "bench").is_dir() and TOKENIZER in (tmp_path / "bench" / "header.json").read_text()


def test_what_lies_outside_propose_is_measured_over_many_pools(tmp_path, monkeypatch):
    monkeypatch.setattr("drafters.bench_datastore.outside_propose.NUM_POOLS", 9)
    spec = PoolSpec(5_000, 5000)
    measured = start_and_teach(tmp_path / "a", spec)
    assert measured["num_pools"] == 9
    assert measured["start_us_per_request"] > 0 and measured["start_first_us_per_request"] > 0
    assert measured["teach_us_per_token"] > 0
    store = build_many_pools(tmp_path / "b", spec)
    assert len({group for _, group, _ in store.pools()}) == 10, "and the domain's"
    assert store.previous(KIND, entity_key("8")) is not None, "in the pool of another group"
    unseen = [request.entity_id for request in recordings(spec, TAUGHT_SEED, 8)]
    assert all(store.previous(KIND, entity_key(entity)) is None for entity in unseen)


def row(**fields):
    return {"method": "laser", "pool_tokens": 10_000_000, "vocab_size": 49152, **fields}


def test_targets_are_met_or_missed_by_the_worst_row():
    met = targets([row(bytes_per_token=6.0), row(bytes_per_token=11.9)])
    assert met.startswith("met ") and "11.9" in met and "not measured" in met
    missed = targets([row(bytes_per_token=6.0), row(bytes_per_token=12.1)])
    assert missed.startswith("MISSED") and "12.1" in missed
    assert "met " not in targets([row(bytes_per_token=6.0) | {"method": "arctic"}])


def test_a_target_of_one_pool_size_looks_at_that_size_only():
    rows = [row(build_sec=3.0), row(build_sec=90.0) | {"pool_tokens": 100_000_000}]
    assert "met           seconds to build 10 M tokens on one core: 3," in targets(rows)


def test_what_was_not_measured_is_a_dash():
    assert table([row(bytes_per_token=6.07)]).splitlines()[1].split()[3:5] == ["6.07", "-"]
