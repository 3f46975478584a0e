from datetime import UTC, datetime, timedelta

import pytest

from jobs.scale.__main__ import driver_costs, main
from jobs.scale.speedup import Speedup, Timing, shard_spans
from jobs.scale.tables import load_costs, memory_line, save_costs, speedup_table
from pipeline.errors import DataError
from pipeline.scale.costs import Cost
from pipeline.scale.memory import Memory
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result

COSTS = [
    Cost("a call and its answer", "driver", "worker", (100, 1000), (0.02, 0.2)),
    Cost("a wait over three calls each", "driver", "worker", (100, 1000), (0.001, 0.01)),
    Cost("sum of the workers' progress", "driver", "worker", (100, 1000), (0.001, 0.01)),
    Cost("queue", "driver", "shard", (100, 1000), (0.0001, 0.001)),
]


@pytest.fixture
def run(tmp_path):
    """Four shards of three rows, each written now after ten seconds."""
    layout = RunLayout(tmp_path / "movielens" / "runs" / "run")
    plan = make_plan(num_shards=4, rows_per_shard=3)
    for number in range(4):
        result = make_result(f"item-{number:05}", plan.slice(3 * number, 3))
        commit_part(layout, result, FINGERPRINT, started_at=datetime.now(UTC) - timedelta(seconds=10))
    return layout


def test_shard_times_come_from_the_manifests(run):
    spans, num_rows = shard_spans(run)
    assert num_rows == 12
    assert [round(end - start) for start, end in spans] == [10] * 4


def test_ratios_are_taken_turn_by_turn():
    one = tuple(Timing(1, seconds, (1.0,), 1) for seconds in (10.0, 12.0, 20.0))
    two = tuple(Timing(2, seconds, (1.0,), 1) for seconds in (5.0, 6.6, 12.0))
    speedup = Speedup(one, two)
    assert speedup.ratios == pytest.approx([0.5, 0.55, 0.6]) and speedup.ratio == pytest.approx(0.55)
    assert "| 2 | 12.0 s | 6.6 s | 0.550 |" in speedup_table(speedup)


def test_costs_survive_their_file(tmp_path):
    save_costs(COSTS, tmp_path / "costs.json")
    assert list(load_costs(tmp_path / "costs.json").values()) == COSTS
    costs = driver_costs(load_costs(tmp_path / "costs.json"), num_workers=1000)
    assert costs.per_worker_sec == pytest.approx(3e-5)
    assert costs.questions_share == pytest.approx(200 * 2e-4)
    (tmp_path / "costs.json").write_text("[1]")
    with pytest.raises(DataError, match="no costs of"):
        load_costs(tmp_path / "costs.json")


def test_memory_is_told_by_the_row_and_at_full_size():
    memory = Memory((1000, 3000), (2 * 2**20, 4 * 2**20))
    assert memory.per_unit_bytes == pytest.approx(2**20 / 1000)
    assert memory.fixed_bytes == pytest.approx(2**20)
    line = memory_line("driver's memory for the plan", memory, 1_048_575_000, "row")
    assert line.startswith(
        "driver's memory for the plan: 1,049 bytes a row and 1 MiB (2 MiB at 1,000, 4 MiB at 3,000 rows)"
    )
    assert line.endswith("; 1,024.0 GiB at 1,048,575,000 rows")


def test_a_run_is_played_with_ten_to_a_thousand_workers(run, tmp_path, capsys):
    save_costs(COSTS, tmp_path / "bench" / "costs.json")
    words = ["simulate", f"--run={run.root}", "--entities=100000", "--faster=1", f"paths.data={tmp_path}"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert output.startswith("4 shards measured: 1.6667 s of a worker for each row")
    assert output.count("| 1,000 |") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grow"], "grow: no such verb; one of speedup, costs, simulate"),
        (["simulate"], "--run: missing"),
        (["costs", "--rows=many"], "--rows=many: must be positive integers"),
        (["costs", "--memory-rows=5,5"], "--memory-rows=5,5: needs two sizes"),
        (["costs", "--memory-users=5"], "--memory-users=5: needs two sizes"),
        (["costs", "dataset=amazon_books", "dataset.raw=there"], "amazon_books: the ratings made up are"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message, capsys, tmp_path):
    assert main([*words, f"paths.data={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
