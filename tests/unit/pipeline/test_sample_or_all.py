"""A run says that it was a sample where `limit` or `offset` left entities out, and only there."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline import road


@pytest.mark.parametrize(
    ("limit", "offset", "is_sample"),
    [("all", 0, False), (3, 0, False), (2, 0, True), ("all", 1, True), (9, 1, True)],
)
def test_an_entity_without_a_prompt_makes_no_sample(limit, offset, is_sample):
    rows = pa.table({"row": [0, 1, 2]})
    tables = SimpleNamespace(users=rows, items=rows.slice(0, 1))
    planned = rows.slice(0, 2)  # of four entities: the others had no prompt
    run = SimpleNamespace(run_id="r", plan=planned, tables=tables)
    report = road._report(SimpleNamespace(limit=limit, offset=offset), run, None, None)
    assert (report.coverage.num_planned, report.coverage.is_sample) == (2, is_sample)
