"""The whole command on generated traces."""

import importlib.util
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafters.replay.__main__ import main
from drafters.replay.traces import percentile

NEEDS_ARCTIC = pytest.mark.skipif(
    importlib.util.find_spec("arctic_inference") is None, reason="arctic-inference: make bench-tools"
)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    phrases = np.random.default_rng(1).integers(0, 900, (30, 12))
    random = np.random.default_rng(2)
    rows = [
        {
            "entity_id": f"e{n}",
            "group": f"g{n % 2}",
            "prompt_token_ids": random.integers(0, 900, 20).tolist(),
            "output_token_ids": phrases[random.integers(0, 30, 6)].ravel().tolist(),
        }
        for n in range(120)
    ]
    path = tmp_path_factory.mktemp("trace") / "texts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def run(trace, tmp_path, capsys, *options):
    report = tmp_path / "report.json"
    assert main([str(trace), "--json", str(report), *options]) == 0
    (result,) = json.loads(report.read_text())
    return result, capsys.readouterr().out


def test_a_frontier_of_prices(trace, tmp_path, capsys):
    result, shown = run(trace, tmp_path, capsys, "--arctic", "--price", "0.05", "0.5", "0.95")
    rows = result["rows"]
    assert [row["setting"] for row in rows] == ["price 0.05", "price 0.5", "price 0.95"]
    drafted = [row["drafted_per_step"] for row in rows]
    assert drafted == sorted(drafted, reverse=True)
    assert rows[0]["tokens_per_step"] > rows[2]["tokens_per_step"] > 2.0
    assert all(row["us_per_request"] > 0 for row in rows)
    assert "4.2% of the measured 8-grams repeat" in shown and "price 0.05" in shown
    assert result["duels"] == []


def test_a_batch_drafts_what_single_requests_do(trace, tmp_path, capsys):
    def tokens_per_step(*options):
        result, _ = run(trace, tmp_path, capsys, "--arctic", "--price", "0.2", *options)
        return result["rows"][0]["tokens_per_step"]

    assert tokens_per_step("--batch", "8") == pytest.approx(tokens_per_step(), rel=0.05)


@NEEDS_ARCTIC
def test_both_drafters_meet_at_equal_drafts(trace, tmp_path, capsys):
    result, shown = run(trace, tmp_path, capsys, "--price", "0.05", "0.5", "--arctic", "1,0,0.1", "1,0,0.7")
    assert [row["method"] for row in result["rows"]] == ["laser", "laser", "arctic", "arctic"]
    assert all(row["tokens_per_step"] > 1.2 for row in result["rows"] if row["method"] == "arctic")
    assert result["duels"] and {duel["verdict"] for duel in result["duels"]} <= {"win", "even", "loss"}
    assert "texts.parquet: ratio" in shown


@pytest.fixture
def warm_twins(tmp_path):
    """A trace whose measured texts stand word for word among the warm ones, and nowhere else."""
    random = np.random.default_rng(3)
    names = [f"e{n}" for n in range(400)]
    measured = [name for name in names if percentile(name) < 12][:20]
    warm = [name for name in names if 12 <= percentile(name) < 24][:20]
    pool = [name for name in names if percentile(name) >= 24][:40]
    twins = [random.integers(0, 5000, 60).tolist() for _ in measured]
    outputs = [*twins, *twins, *(random.integers(0, 5000, 60).tolist() for _ in pool)]
    rows = [
        {"entity_id": name, "group": "g", "prompt_token_ids": [1, 2, 3], "output_token_ids": output}
        for name, output in zip([*measured, *warm, *pool], outputs, strict=True)
    ]
    path = tmp_path / "twins.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_laser_drafts_from_the_warm_texts_too(warm_twins, tmp_path, capsys):
    result, shown = run(warm_twins, tmp_path, capsys, "--arctic", "--price", "0.05")
    assert result["rows"][0]["tokens_per_step"] > 5.0
    assert "every method drafts from the same 60 others" in shown
    assert "20 of these were replayed first, against the other 40" in shown


@NEEDS_ARCTIC
def test_no_method_knows_a_text_that_the_other_does_not(warm_twins, tmp_path, capsys):
    result, _ = run(warm_twins, tmp_path, capsys, "--price", "0.05", "--arctic", "4,1,0.1")
    assert {row["method"] for row in result["rows"] if row["tokens_per_step"] > 5.0} == {"laser", "arctic"}


def test_what_cannot_be_replayed_ends_with_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "absent.parquet")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "absent.parquet" in error and error.count("\n") == 1
