import pyarrow as pa
import pytest

from pipeline.plan import make_plan
from pipeline.scale.costs import Cost, measure_costs
from pipeline.scale.synthetic import prompt_batches
from pipeline.schemas import PLAN, PROMPTS

DRIVER = {"order and cut the plan", "write the plan", "index the plan", "check the finished parts", "queue"}
WORKER = {"open the plan, read a shard", "read a further shard", "write a part"}


def test_a_line_through_the_origin():
    cost = Cost("x", "driver", "row", (100, 1000), (1.0, 10.0))
    assert cost.per_unit_sec == pytest.approx(0.01)
    assert cost.growth == pytest.approx(1.0)
    assert Cost("x", "driver", "row", (100, 1000), (1.0, 20.0)).growth == pytest.approx(2.0)


def test_made_up_prompts_are_prompts():
    rows = pa.concat_tables(prompt_batches(2000))
    assert rows.num_rows == 2000
    assert rows.schema.equals(PROMPTS)
    assert make_plan(rows, 100).schema.equals(PLAN)


def test_every_step_of_a_run_is_measured(tmp_path):
    costs = {cost.name: cost for cost in measure_costs(tmp_path, [200, 400], shard_size=20)}
    assert {name for name, cost in costs.items() if cost.where == "worker"} == WORKER
    assert {name for name, cost in costs.items() if cost.where == "driver"} >= DRIVER
    assert costs["write the plan"].sizes == (200, 400)
    assert all(seconds > 0 for cost in costs.values() for seconds in cost.seconds)
