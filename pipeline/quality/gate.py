"""Decodes a sample of a run's relaxed texts strictly as well, and fails if they are too far apart."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import QualityError
from pipeline.fingerprint import FINGERPRINT_CHARS, text_fingerprint
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.dispatch import generate_shards
from pipeline.generate.progress import ProgressView
from pipeline.models import ModelSource
from pipeline.plan import write_plan
from pipeline.printable import plural
from pipeline.quality.metrics import DecodedTexts, QualityMetric, measure
from pipeline.quality.same_decoding import require_same_decoding
from pipeline.quality.variants import (
    SAMPLED,
    STRICT,
    VARIANTS,
    QualityWorker,
    of_variant,
    sampled_rows,
    variant_plan,
)
from pipeline.quality_settings import has_measured_enough
from pipeline.settings import AcceptanceSettings, DrafterSettings, RunSettings
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json, write_json
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import knowledge_dataset

logger = logging.getLogger(__name__)
Encode = Callable[[list[str]], np.ndarray]  # texts -> float32 [num_texts, width]
OpenProgress = Callable[[], AbstractContextManager[ProgressView]]


@dataclass(frozen=True)
class QualityReport:
    """What the gate measured, on how many (`sample`) of the entities that it had chosen."""

    num_chosen: int
    sample: int
    metrics: list[QualityMetric]

    def as_dict(self) -> dict[str, Any]:
        """The content of `quality.json`."""
        return {
            "num_chosen": self.num_chosen,
            "sample": self.sample,
            "metrics": [metric.as_dict() for metric in self.metrics],
        }

    def require_ok(self, run_id: str) -> None:
        """Raise `QualityError` if a metric is over its budget, or too little could be measured."""
        if not has_measured_enough(self.sample, self.num_chosen):
            raise QualityError(
                f"run_id={run_id}: only {self.sample} of {self.num_chosen} relaxed texts could be compared "
                "with strict and sampled ones, the others failed to decode; see failed.parquet below quality/"
            )
        bad = [metric for metric in self.metrics if not metric.is_ok]
        if bad:
            found = "; ".join(
                f"{metric.name}={metric.value:.3g}, at most {metric.budget:g}" for metric in bad
            )
            raise QualityError(
                f"run_id={run_id}: the relaxed texts are too far from strict ones ({found}); "
                "see quality.json, and the budgets in quality.max_*"
            )


def check_quality(
    settings: RunSettings,
    run: RunLayout,
    source: ModelSource,
    encode: Encode,
    open_progress: OpenProgress,
) -> QualityReport:
    """Measure the finished run `run`, write its `quality.json`, and raise `QualityError` over a budget,
    or if less than half of the sample could be measured; `ConfigError`, before anything is written, if
    `settings` and `source` would decode otherwise than the run did.

    The sample's prompts are decoded greedily without drafts, and twice sampled, by the same workers as
    any run, below `<run>/quality/`; what is there already is not decoded again. A run without a relaxed
    text has nothing to measure: its sample is 0. `encode` is the sentence encoder, called once.
    """
    run_id = run.root.name
    require_same_decoding(run, settings, source)
    sample = sampled_rows(run, run_id, settings.quality.num_entities)
    if not sample.num_rows:
        report = QualityReport(0, 0, [])
    else:
        texts = plural(sample.num_rows, "relaxed text is", "relaxed texts are")
        logger.info("quality: %s decoded strictly, and sampled twice", texts)
        decoded = _decode_variants(settings, run, source, sample, open_progress)
        report = _measured(sample, decoded, encode, settings)
    write_json(report.as_dict(), run.quality)
    report.require_ok(run_id)
    return report


def _decode_variants(
    settings: RunSettings, run: RunLayout, source: ModelSource, sample: pa.Table, open_progress: OpenProgress
) -> pa.Table:
    """The knowledge rows of all variants of the sample."""
    settings = settings.model_copy(
        update={
            "drafter": DrafterSettings(name="none", max_draft_tokens=0),
            "acceptance": AcceptanceSettings(name="strict", top_k=1, min_prob=0.0),
            "max_failed_fraction": 1.0,  # texts that fail are judged by how many can be compared
        }
    )
    plan = variant_plan(run, sample, settings.plan.shard_size)
    fingerprint = _fingerprint(settings, source, plan)
    layout = RunLayout(run.root / "quality" / fingerprint)
    write_plan(plan, layout.plan)
    spec = WorkerSpec(
        settings=settings,
        model_path=source.path,
        model_revision=source.revision,
        tokenizer_hash=source.tokenizer_hash,
        fingerprint=fingerprint,
        run_id=f"quality-{run.root.name}",
        datastore=None,
        datastore_version=None,
        run_log=str(layout.log),
    )
    with open_progress() as progress:
        generate_shards(plan, spec, layout, QualityWorker, progress.update)
    return knowledge_dataset(layout).to_table()


def _fingerprint(settings: RunSettings, source: ModelSource, plan: pa.Table) -> str:
    content = {
        "text": text_fingerprint(settings.model, source.revision, settings.knowledge, settings.acceptance),
        "sampling": [settings.quality.temperature, settings.quality.top_p],
        "plan": plan.select(["shard", "kind", "entity_id", "prompt_hash"]).to_pydict(),
    }
    return sha256_of_json(content)[:FINGERPRINT_CHARS]


def _measured(sample: pa.Table, decoded: pa.Table, encode: Encode, settings: RunSettings) -> QualityReport:
    """The metrics over the entities that all variants have a text of."""
    variants = {variant: of_variant(decoded, variant, sample) for variant in VARIANTS}
    complete = np.ones(sample.num_rows, dtype=bool)
    for rows in variants.values():
        complete &= pc.is_valid(rows["text"]).to_numpy()
    if not complete.any():
        return QualityReport(sample.num_rows, 0, [])
    kept = pa.array(complete)
    tables = [sample.filter(kept), *(variants[name].filter(kept) for name in (STRICT, *SAMPLED))]
    with stage("encoding the texts of the quality sample"):
        embeddings = encode([text for rows in tables for text in rows["text"].to_pylist()])
    relaxed, strict, first, second = (
        _texts(rows, part) for rows, part in zip(tables, np.split(embeddings, len(tables)), strict=True)
    )
    metrics = measure(relaxed, strict, (first, second), settings.quality)
    return QualityReport(sample.num_rows, int(complete.sum()), metrics)


def _texts(rows: pa.Table, embeddings: np.ndarray) -> DecodedTexts:
    return DecodedTexts(
        embeddings=embeddings,
        token_ids=rows["token_ids"].combine_chunks(),
        num_relaxed_tokens=pc.sum(rows["num_relaxed_tokens"], min_count=0).as_py(),
    )
