"""`jobs.benchmark` from the command to its table, with real engines side by side."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
SMALL = [
    "bench.concurrencies=[1,2]",
    "bench.num_repeats=1",
    "bench.num_pool=6",
    "bench.num_warmup=2",
    "knowledge.user.max_tokens=16",
    "knowledge.item.max_tokens=16",
    "engine.cpu_kv_cache_gib=1",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]  # an engine for every method, and for the pool


def test_every_method_is_measured_on_the_same_texts_beside_none(tmp_path, smollm2):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / smollm2.name).symlink_to(smollm2)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.benchmark", "dataset=movielens", f"paths.data={tmp_path}", *SMALL],
        cwd=CHECKOUT,
        env=os.environ | {"LASER_BACKEND": "cpu"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "bench" / "generation.json").read_text())
    cells = {(row["kind"], row["concurrency"], row["method"]): row for row in rows}
    assert {(kind, c) for kind, c, _ in cells} == {("item", 1), ("item", 2), ("user", 1), ("user", 2)}
    for kind, concurrency in {(kind, c) for kind, c, _ in cells}:
        base = cells[(kind, concurrency, "none")]
        assert (base["ratio_to_none"], base["tokens_per_step"], base["drafted_per_step"]) == (1.0, 1.0, 0.0)
        for method in ("ngram", "laser-strict", "laser-relaxed"):
            row = cells[(kind, concurrency, method)]
            assert row["ratio_low"] <= row["ratio_to_none"] <= row["ratio_high"]
            assert row["tokens_per_step"] >= 1.0 and row["drafter_ms_per_step"] > 0.0
            assert 0 < row["mean_concurrency"] <= concurrency and row["num_texts"] == 6 + 2 * (
                concurrency == 2
            )
    assert (tmp_path / "bench" / "generation.png").stat().st_size > 1000
    assert "| item | 1 |" in (tmp_path / "bench" / "generation.md").read_text()
