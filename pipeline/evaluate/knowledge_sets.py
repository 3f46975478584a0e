"""The knowledge sets that are compared, each generated once by the road of every run, and kept.

A set is two runs below `<folder>/<set>-<half>`, data directories of their own, each over one half of the
entities. LASER's runs begin with pools of the greedy texts of the other half: warm, as a night's are,
and without a text of the entity itself. (With the own greedy texts in its pools, relaxed decoding would
write just these, and the comparison would show nothing; with empty pools it relaxes less than a night.)
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluate.results import GREEDY, RELAXED, STRICT
from pipeline.generate.progress import ProgressView
from pipeline.generate.summary import count_repeated_ngrams
from pipeline.models import resolve_model
from pipeline.models.tokenizer import vocabulary_size
from pipeline.pools import extend_pools
from pipeline.road import generate_knowledge
from pipeline.settings import AcceptanceSettings, DrafterSettings, RunSettings
from pipeline.storage.layout import DatasetLayout, RunLayout, models_folder
from pipeline.storage.parts import knowledge_dataset

logger = logging.getLogger(__name__)
STRICT_RULE = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)
RELAXED_RULE = AcceptanceSettings(name="relaxed", top_k=2, min_prob=0.1)  # the paper's
MAX_DRAFT_TOKENS = 16
HALVES = ("a", "b")
OpenProgress = Callable[[], AbstractContextManager[ProgressView]]


@dataclass(frozen=True)
class KnowledgeSet:
    """A way to decode."""

    name: str
    drafter: DrafterSettings
    acceptance: AcceptanceSettings

    def applied_to(self, settings: RunSettings, folder: Path, half: str) -> RunSettings:
        """The settings of this set's run over `half`, which lies below `folder`."""
        name = f"{self.name}-{half}"
        return settings.model_copy(
            update={
                "drafter": self.drafter,
                "acceptance": self.acceptance,
                "run_id": name,
                "paths": settings.paths.model_copy(update={"data": str(folder / name)}),
            }
        )


def compared_sets(settings: RunSettings) -> list[KnowledgeSet]:
    """Greedy, LASER strict, and LASER with the configured relaxed rule (the paper's if it is strict)."""
    num_drafts = settings.drafter.max_draft_tokens or MAX_DRAFT_TOKENS
    laser = DrafterSettings(name="laser", max_draft_tokens=num_drafts)
    relaxed = settings.acceptance if settings.acceptance.name == "relaxed" else RELAXED_RULE
    return [
        KnowledgeSet(GREEDY, DrafterSettings(name="none", max_draft_tokens=0), STRICT_RULE),
        KnowledgeSet(STRICT, laser, STRICT_RULE),
        KnowledgeSet(RELAXED, laser, relaxed),
    ]


def generate_sets(
    settings: RunSettings, only: pa.Table, folder: Path, open_progress: OpenProgress
) -> dict[str, pa.Table]:
    """The knowledge rows of each set for the entities of `only`; what is there already is not done again."""
    runs: dict[tuple[str, str], RunLayout] = {}
    for chosen in compared_sets(settings):
        for half, other in (HALVES, HALVES[::-1]):
            own = chosen.applied_to(settings, folder, half)
            logger.info("knowledge set %s, half %s", chosen.name, half)
            if chosen.drafter.name == "laser":
                fill_pools(own, runs[GREEDY, other])
            report = generate_knowledge(own, open_progress, half_of(only, half))
            runs[chosen.name, half] = DatasetLayout.of(own.paths.data, own.dataset.name).run(report.run_id)
    return {
        chosen.name: pa.concat_tables(
            [knowledge_dataset(runs[chosen.name, half]).to_table() for half in HALVES]
        )
        for chosen in compared_sets(settings)
    }


def half_of(entities: pa.Table, half: str) -> pa.Table:
    """Every other row of each kind in the order of a hash of the id: one of `HALVES`, which share nothing."""
    rows = entities.select(["kind", "entity_id"]).to_pylist()
    order = sorted(
        range(len(rows)),
        key=lambda row: (rows[row]["kind"], blake2b(rows[row]["entity_id"].encode()).digest()),
    )
    return entities.take(pa.array(order[HALVES.index(half) :: 2], pa.int64()))


def fill_pools(settings: RunSettings, texts: RunLayout) -> None:
    """Let a run with `settings` that has not begun draft from the texts of the run `texts`."""
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    extend_pools(layout, texts, None, source.tokenizer_hash, vocab_size)


def describe_sets(sets: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """For each set: what was written, and how much of it is what greedy decoding wrote."""
    return [_described(name, rows, sets[GREEDY]) for name, rows in sets.items()]


def _described(name: str, rows: pa.Table, greedy: pa.Table) -> dict[str, Any]:
    counts = [count_repeated_ngrams(chunk) for chunk in rows["token_ids"].chunks]
    repeated, total = (sum(numbers) for numbers in zip((0, 0), *counts, strict=True))
    num_tokens = pc.sum(rows["num_output_tokens"]).as_py()
    return {
        "knowledge": name,
        "acceptance": sorted(pc.unique(rows["acceptance"]).to_pylist()),
        "pools": ", ".join(sorted(pc.unique(rows["datastore_version"].drop_null()).to_pylist())) or "none",
        "num_texts": rows.num_rows,
        "num_tokens": num_tokens,
        "tokens_per_step": num_tokens / max(pc.sum(rows["num_decode_steps"]).as_py(), 1),
        "relaxed_share": pc.sum(rows["num_relaxed_tokens"]).as_py() / max(num_tokens, 1),
        "looping_share": repeated / total if total else 0.0,
        "same_as_greedy": _same_share(rows, greedy),
    }


def _same_share(rows: pa.Table, greedy: pa.Table) -> float:
    """The share of entities whose tokens are those of the greedy text."""
    keys = ["kind", "entity_id"]
    right = greedy.select([*keys, "text"]).rename_columns([*keys, "greedy_text"])
    both = rows.select([*keys, "text"]).join(right, keys, join_type="inner")
    equal = pc.sum(pc.equal(both["text"], both["greedy_text"]), min_count=0).as_py()
    return equal / max(both.num_rows, 1)


def entity_table(ids: dict[str, pa.Array]) -> pa.Table:
    """Kind and id of each entity, as `generate_knowledge` takes them."""
    parts: Sequence[pa.Table] = [
        pa.table({"kind": pa.repeat(kind, len(known)), "entity_id": known}) for kind, known in ids.items()
    ]
    return pa.concat_tables(parts)
