"""The quality gate over a real run, and acceptance rules that differ by kind, in the real vLLM on Ray."""

import json
from contextlib import nullcontext

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs.config import load_settings
from pipeline.errors import QualityError
from pipeline.generate.progress import PlainView
from pipeline.models import resolve_model
from pipeline.quality import check_quality
from pipeline.report.quality import COMPARED, read_quality
from pipeline.road import generate_knowledge
from pipeline.storage.layout import DatasetLayout, RunLayout, models_folder
from pipeline.storage.parts import knowledge_dataset

pytestmark = pytest.mark.slow  # three engines

SMALL = [
    "limit=8",
    "run_id=gated",
    "plan.shard_size=8",
    "knowledge.user.max_tokens=24",
    "knowledge.item.max_tokens=24",
    "engine.cpu_kv_cache_gib=1",
    "model.dtype=float32",  # in bfloat16 a rounded logit decides now and then, by the size of the batch
    "quality.num_entities=4",
    "quality.max_drift_to_sampled=null",
]
# Three of the eight items are comedies. No token is likelier than 1, so nothing of them is relaxed, although
# their rule is none that the gate passes over: strict decoding has to write the same texts.
UNRELAXED = "relaxed(k=2,p=1)"
ITEMS_ONLY = (
    "acceptance.overrides=[{kind: user, top_k: 1}, {kind: item, top_k: 4, min_prob: 0.01}, "
    "{kind: item, group: comedy, top_k: 2, min_prob: 1.0}]"
)
DRIFT_ONLY = dict.fromkeys(("max_length_change", "max_looping_increase", "max_relaxed_share"))


def letters(texts):
    """Counts of letters: a stand-in for a sentence encoder, which only the distances are made of."""
    counts = [[text.lower().count(chr(ord("a") + n)) for n in range(26)] for text in texts]
    return np.array(counts, dtype=np.float32)


def different_each_time(texts, rng=np.random.default_rng(0)):  # noqa: B008
    """Vectors that no two sets of texts share."""
    return rng.normal(size=(len(texts), 8)).astype(np.float32)


def progress():
    return nullcontext(PlainView("test"))


@pytest.fixture(scope="module")
def gated(smollm2, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    overrides = [*SMALL, ITEMS_ONLY, f"paths.data={data}", f"model.path={smollm2}"]
    settings = load_settings("generate", overrides)
    generate_knowledge(settings, progress)
    return settings, DatasetLayout.of(data, "movielens").run("gated")


def check(settings, run, encode=letters, **quality):
    settings = settings.model_copy(update={"quality": settings.quality.model_copy(update=quality)})
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    return check_quality(settings, run, source, encode, progress)


def test_each_kind_is_decoded_by_its_own_rule(gated):
    _, run = gated
    rows = knowledge_dataset(run).to_table()
    users = rows.filter(pc.equal(rows["kind"], "user"))
    items = rows.filter(pc.equal(rows["kind"], "item"))
    assert set(users["acceptance"].to_pylist()) == {"strict"}
    assert set(items["acceptance"].to_pylist()) == {"relaxed(k=4,p=0.01)", UNRELAXED}
    comedies = items.filter(pc.equal(items["group"], "comedy"))
    assert set(comedies["acceptance"].to_pylist()) == {UNRELAXED}
    assert pc.sum(comedies["num_relaxed_tokens"]).as_py() == 0
    assert pc.sum(users["num_relaxed_tokens"]).as_py() == 0


def test_the_gate_measures_relaxed_texts_only_and_fails_over_budget(gated):
    settings, run = gated
    report = check(settings, run, max_drift=2.0, **DRIFT_ONLY)
    values = {metric.name: metric.value for metric in report.metrics}
    assert report.sample == 2  # of the items: users were decoded strictly
    assert 0.0 <= values["drift"] <= 2.0
    assert values["sampled_drift"] > 0.0
    assert json.loads(run.quality.read_text())["sample"] == 2
    assert {check.name for check in read_quality(run.quality)} == {COMPARED, *values}
    with pytest.raises(QualityError, match=r"run_id=gated: .*\(drift=.*at most 0\)"):
        check(settings, run, different_each_time, max_drift=0.0, **DRIFT_ONLY)


def test_a_strict_variant_is_what_greedy_decoding_writes(gated):
    """The reference is exact: where no token was relaxed, its text is that of the run."""
    settings, run = gated
    report = check(settings, run, num_entities=16, max_drift=2.0, **DRIFT_ONLY)
    assert report.sample == 8  # all items
    items = [row for row in knowledge_dataset(run).to_table().to_pylist() if row["kind"] == "item"]
    unrelaxed = {row["entity_id"]: row["token_ids"] for row in items if row["num_relaxed_tokens"] == 0}
    compared = {
        entity_id: (row["token_ids"], unrelaxed[entity_id])
        for row, variant, entity_id in decoded_variants(run)
        if variant == "strict" and entity_id in unrelaxed
    }
    comedies = {row["entity_id"] for row in items if row["acceptance"] == UNRELAXED}
    assert comedies and comedies <= set(compared), "else nothing would be compared"
    for entity_id, (strict, written) in compared.items():
        assert strict == written, entity_id


def decoded_variants(run):
    """(row, variant, entity) of all that the gate decoded."""
    for folder in (run.root / "quality").iterdir():
        for row in knowledge_dataset(RunLayout(folder)).to_table().to_pylist():
            yield row, *row["entity_id"].split("/", 1)
