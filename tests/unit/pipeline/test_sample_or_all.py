"""A run says that it was a sample where `limit` or `offset` left entities out, and only there."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipeline import road
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result


@pytest.mark.parametrize(
    ("limit", "offset", "is_sample"),
    [("all", 0, False), (3, 0, False), (2, 0, True), ("all", 1, True), (9, 1, True)],
)
def test_an_entity_without_a_prompt_makes_no_sample(tmp_path, limit, offset, is_sample):
    rows = pa.table({"row": [0, 1, 2]})
    tables = SimpleNamespace(users=rows, items=rows.slice(0, 1))
    planned = rows.slice(0, 2)  # of four entities: the others had no prompt
    layout = DatasetLayout.of(tmp_path, "toy")
    commit_part(layout.run("r"), make_result("item-00000", make_plan(1, 2)), FINGERPRINT)
    run = SimpleNamespace(run_id="r", layout=layout.run("r"), plan=planned, tables=tables)
    report = road._report(SimpleNamespace(limit=limit, offset=offset), layout, run, None, None)
    assert (report.coverage.num_planned, report.coverage.is_sample) == (2, is_sample)
