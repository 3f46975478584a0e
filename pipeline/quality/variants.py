"""The sample of a night's relaxed texts, and the other ways in which its prompts are decoded."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generate.engine import TextRequest
from pipeline.generate.worker import KnowledgeWorker
from pipeline.plan import make_plan
from pipeline.schemas import KNOWLEDGE, PLAN, PROMPTS
from pipeline.settings import KINDS
from pipeline.storage.layout import RunLayout
from pipeline.storage.location import parquet_dataset
from pipeline.storage.parts import knowledge_dataset

STRICT = "strict"
SAMPLED = ("sampled-1", "sampled-2")
VARIANTS = (STRICT, *SAMPLED)
SEPARATOR = "/"


def sampled_rows(run: RunLayout, run_id: str, num_entities: int) -> pa.Table:
    """Knowledge rows (schema KNOWLEDGE) of the run, as many of each kind, chosen by the run id alone.

    Only rows that were decoded by a relaxed rule; fewer, or none, where the run has no more of them. Rows
    that share a text are represented by the one that it was generated for.
    """
    rows = knowledge_dataset(run)
    relaxed = (pc.field("acceptance") != STRICT) & pc.is_null(pc.field("shared_from"))
    keys = rows.to_table(columns=["kind", "entity_id"], filter=relaxed)
    seed = int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest(), "big")
    rng = np.random.default_rng(seed)
    parts = [KNOWLEDGE.empty_table()]
    for kind in KINDS:
        ids = keys.filter(pc.equal(keys["kind"], kind))["entity_id"]
        ids = ids.take(pc.sort_indices(ids))
        number = min(len(ids), -(-num_entities // len(KINDS)))
        chosen = ids.take(pa.array(np.sort(rng.choice(len(ids), number, replace=False)), pa.int64()))
        wanted = (pc.field("kind") == kind) & pc.field("entity_id").isin(chosen.combine_chunks())
        parts.append(rows.to_table(filter=wanted & relaxed).sort_by("entity_id"))
    return pa.concat_tables(parts)


def variant_plan(run: RunLayout, sample: pa.Table, shard_size: int) -> pa.Table:
    """A plan (schema PLAN) that decodes the prompts of `sample` in every variant.

    The variant stands before the id: `strict/42`, `sampled-1/42`.
    """
    planned = parquet_dataset([run.plan], PLAN)
    parts = []
    for kind in KINDS:
        ids = sample.filter(pc.equal(sample["kind"], kind))["entity_id"].combine_chunks()
        rows = planned.to_table(
            columns=PROMPTS.names, filter=(pc.field("kind") == kind) & pc.field("entity_id").isin(ids)
        )
        parts += [_named(rows, variant) for variant in VARIANTS]
    return make_plan(pa.concat_tables(parts), shard_size)


def _named(rows: pa.Table, variant: str) -> pa.Table:
    names = pc.binary_join_element_wise(variant, rows["entity_id"], SEPARATOR)
    return rows.set_column(rows.schema.get_field_index("entity_id"), PROMPTS.field("entity_id"), names)


def of_variant(knowledge: pa.Table, variant: str, sample: pa.Table) -> pa.Table:
    """The rows that `variant` wrote for the entities of `sample`, in its order; null rows where it failed."""
    keys = pc.binary_join_element_wise(sample["kind"], variant, sample["entity_id"], SEPARATOR)
    known = pc.binary_join_element_wise(knowledge["kind"], knowledge["entity_id"], SEPARATOR)
    places = pc.index_in(keys, value_set=known.combine_chunks())
    return knowledge.combine_chunks().take(places)


class QualityWorker(KnowledgeWorker):
    """Decodes each row of a `variant_plan` in its own way: greedily, or sampled with a seed of its own."""

    def _request(self, key: str, row: dict[str, Any]) -> TextRequest:
        request = super()._request(key, row)
        variant = row["entity_id"].split(SEPARATOR, 1)[0]
        settings = self._spec.settings
        if variant == STRICT:
            return request
        sampling = settings.model.sampling.model_copy(
            update={
                "temperature": settings.quality.temperature,
                "top_p": settings.quality.top_p,
                "seed": SAMPLED.index(variant) + 1,
            }
        )
        return replace(request, sampling=sampling)
