"""Which texts the gate looks at, and how their prompts are decoded."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.errors import QualityError
from pipeline.failure_bound import too_many_failed
from pipeline.models import ModelSource
from pipeline.plan import write_plan
from pipeline.quality import gate
from pipeline.quality.gate import _measured
from pipeline.quality.variants import VARIANTS, of_variant, sampled_rows, variant_plan
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import commit_part
from tests.generation import FINGERPRINT, make_plan, make_result, run_settings

PLAN = make_plan(num_shards=3, rows_per_shard=8)


@pytest.fixture
def run(tmp_path):
    layout = RunLayout(tmp_path / "night-1")
    write_plan(PLAN, layout.plan)
    for shard in pc.unique(PLAN["shard"]).to_pylist():
        rows = PLAN.filter(pc.equal(PLAN["shard"], shard))
        commit_part(layout, make_result(shard, rows), FINGERPRINT)
    return layout


def test_the_run_id_alone_decides_the_sample(run):
    first, again = (sampled_rows(run, "night-1", 8)["entity_id"].to_pylist() for _ in range(2))
    assert first == again
    assert len(set(first)) == 4  # half of the sample is for the other kind, which this run lacks
    assert first != sampled_rows(run, "night-2", 8)["entity_id"].to_pylist()


def test_a_small_run_is_looked_at_as_a_whole(run):
    assert sampled_rows(run, "night-1", 500).num_rows == PLAN.num_rows


def test_every_prompt_is_planned_in_every_variant(run):
    sample = sampled_rows(run, "night-1", 6)
    plan = variant_plan(run, sample, 4)
    assert plan.num_rows == sample.num_rows * len(VARIANTS)
    for row in plan.to_pylist():
        variant, entity_id = row["entity_id"].split("/", 1)
        assert variant in VARIANTS
        assert row["prompt"] == f"prompt {entity_id}"


def test_variants_are_matched_to_the_sample_and_gaps_are_null(run):
    sample = sampled_rows(run, "night-1", 6)
    plan = variant_plan(run, sample, 4)
    missing = f"strict/{sample['entity_id'][0].as_py()}"
    decoded = make_result("any", plan, failing=frozenset([missing])).knowledge
    rows = of_variant(decoded, "strict", sample)
    expected = [f"text of prompt {entity_id}" for entity_id in sample["entity_id"].to_pylist()]
    assert rows["text"].to_pylist() == [None, *expected[1:]]
    assert isinstance(rows, pa.Table)


@pytest.mark.parametrize(("num_missing", "is_enough"), [(1, True), (2, True), (3, False), (4, False)])
def test_texts_that_one_variant_lacks_are_not_measured_and_too_many_fail(run, num_missing, is_enough):
    sample = sampled_rows(run, "night-1", 8)  # 4 items; the run has no users
    failing = frozenset(f"sampled-2/{one}" for one in sample["entity_id"].to_pylist()[:num_missing])
    decoded = make_result("any", variant_plan(run, sample, 4), failing=failing).knowledge
    report = _measured(sample, decoded, lambda texts: np.ones((len(texts), 3)), run_settings())
    assert (report.num_chosen, report.sample) == (4, 4 - num_missing)
    refused = pytest.raises(QualityError, match=f"only {report.sample} of 4 relaxed texts")
    with nullcontext() if is_enough else refused:
        report.require_ok("night-1")


def test_failed_variants_are_judged_by_the_gate_and_not_by_the_bound_of_a_run(run, monkeypatch):
    sample = sampled_rows(run, "night-1", 8)
    failing = frozenset(f"strict/{one}" for one in sample["entity_id"].to_pylist()[:2])

    def decode(plan, spec, layout, worker_class, on_progress):
        result = make_result("item-00000", plan, failing)
        commit_part(layout, result, spec.fingerprint)
        assert not too_many_failed(2, plan.num_rows, spec.settings.max_failed_fraction)

    monkeypatch.setattr(gate, "generate_shards", decode)
    source = ModelSource("/models/toy", "1", is_local=True, tokenizer_hash="0" * 64)
    progress = nullcontext(SimpleNamespace(update=None))
    decoded = gate._decode_variants(run_settings(), run, source, sample, lambda: progress)
    assert decoded.num_rows == 4 * len(VARIANTS) - 2
