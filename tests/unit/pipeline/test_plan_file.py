import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.plan import read_plan, write_plan
from pipeline.plan_file import read_rows
from pipeline.schemas import PLAN
from tests.generation import make_plan


@pytest.fixture
def plan():
    return make_plan(num_shards=5, rows_per_shard=3)


def test_each_shard_is_a_row_group_and_is_read_alone(plan, tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(plan, path)
    assert pq.read_metadata(path).num_row_groups == 5
    for number in range(5):
        assert read_rows(path, f"item-{number:05}").equals(plan.slice(3 * number, 3))
    assert read_plan(path).equals(plan)
    assert read_rows(path, "item-00009").equals(PLAN.empty_table())


def test_bounds_are_kept_of_shards_only(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.parquet")
    group = pq.read_metadata(tmp_path / "plan.parquet").row_group(0)
    kept = {group.column(i).path_in_schema for i in range(group.num_columns) if group.column(i).is_stats_set}
    assert kept == {"shard"}


def test_a_plan_of_other_row_groups_is_read_too(plan, tmp_path):
    path = tmp_path / "plan.parquet"
    for size in (2, 4, 100):
        pq.write_table(plan, path, row_group_size=size)
        assert read_rows(path, "item-00002").equals(plan.slice(6, 3))
    pq.write_table(plan, path, write_statistics=False)
    assert read_rows(path, "item-00004").equals(plan.slice(12, 3))


def test_a_plan_that_was_replaced_is_read_anew(plan, tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(plan, path)
    assert read_rows(path, "item-00001").num_rows == 3
    write_plan(make_plan(num_shards=3, rows_per_shard=2), path)
    assert read_rows(path, "item-00001").num_rows == 2


def test_several_threads_may_read(plan, tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(plan, path)
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(read_rows(path, f"item-{n % 5:05}").num_rows))
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 40


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not really"])
def test_an_unreadable_plan_is_named(tmp_path, content):
    path = tmp_path / "plan.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"plan\.parquet: "):
        read_rows(path, "item-00000")


def test_an_empty_plan(tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(PLAN.empty_table(), path)
    assert read_plan(path).equals(PLAN.empty_table())
    assert read_rows(path, "item-00000").num_rows == 0
    assert isinstance(read_rows(path, "x"), pa.Table)
