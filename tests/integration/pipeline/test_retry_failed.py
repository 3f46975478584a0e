"""`retry_failed=true` on Ray: only the failed rows run again, the rest of their shard stays as it is."""

import pyarrow.parquet as pq
import pytest

from pipeline.errors import GenerationError
from pipeline.generate.contract import ShardResult
from pipeline.generate.dispatch import generate_shards
from pipeline.plan import write_plan
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import read_knowledge
from tests.generation import ToyWorker, make_plan, make_result, make_spec

BROKEN = frozenset({"1", "6"})


class FailingOnce(ToyWorker):
    """The rows in `BROKEN` fail until a file `mended` lies in the trace folder."""

    def run_shard(self, shard, rows) -> ShardResult:
        self.leave(f"{shard}-of-{'+'.join(rows['entity_id'].to_pylist())}")
        is_mended = (self.trace / "mended").exists()
        return make_result(shard, rows, frozenset() if is_mended else BROKEN)


@pytest.fixture
def layout(tmp_path) -> RunLayout:
    layout = RunLayout(tmp_path / "run")
    write_plan(make_plan(3, 4), layout.plan)
    return layout


def generate(layout, **changes):
    spec = make_spec(layout, num_workers=1, cpus_per_worker=1)
    settings = spec.settings.model_copy(update=changes)
    spec = type(spec)(**{**vars(spec), "settings": settings})
    return generate_shards(make_plan(3, 4), spec, layout, FailingOnce)


def test_only_failed_rows_are_redone(layout):
    with pytest.raises(GenerationError, match=r"2 of 12 planned items failed, .* max_failed_fraction=0\.01"):
        generate(layout)
    assert pq.read_table(layout.failed).num_rows == 2
    before = {row["entity_id"]: row for row in read_knowledge(layout).to_pylist()}

    assert generate(layout, max_failed_fraction=0.2).num_shards_run == 0, (
        "without retry_failed they stay failed"
    )
    (layout.root / "trace" / "mended").touch()
    outcome = generate(layout, retry_failed=True)

    assert (outcome.num_rows, outcome.num_failed, outcome.num_shards_run) == (12, 0, 2)
    retried = {path.name.split(".")[0] for path in (layout.root / "trace").glob("*-of-*")}
    assert {name for name in retried if name.endswith(("-of-1", "-of-6"))} == {
        "item-00000-of-1",
        "item-00001-of-6",
    }
    after = {row["entity_id"]: row for row in read_knowledge(layout).to_pylist()}
    assert len(after) == 12 and {key: after[key] for key in before} == before
    assert pq.read_table(layout.failed).num_rows == 0
    assert generate(layout, retry_failed=True).num_shards_run == 0
