"""The knowledge sets that are compared, each generated once by the road of every run, and kept.

A set is a run below `<folder>/<set>`, a data directory of its own: its pools begin empty and are its
own, so that no set drafts from the texts of another one. (Relaxed decoding with the greedy texts of the
same entities in its pools would write just these, and the comparison would show nothing.)
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluate.results import GREEDY, RELAXED, STRICT
from pipeline.generate.progress import ProgressView
from pipeline.generate.summary import count_repeated_ngrams
from pipeline.road import generate_knowledge
from pipeline.settings import AcceptanceSettings, DrafterSettings, RunSettings
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.parts import knowledge_dataset

logger = logging.getLogger(__name__)
STRICT_RULE = AcceptanceSettings(name="strict", top_k=1, min_prob=0.0)
RELAXED_RULE = AcceptanceSettings(name="relaxed", top_k=2, min_prob=0.1)  # the paper's
MAX_DRAFT_TOKENS = 16
OpenProgress = Callable[[], AbstractContextManager[ProgressView]]


@dataclass(frozen=True)
class KnowledgeSet:
    """A way to decode."""

    name: str
    drafter: DrafterSettings
    acceptance: AcceptanceSettings

    def applied_to(self, settings: RunSettings, folder: Path) -> RunSettings:
        """The settings of this set's run, which lies below `folder`."""
        return settings.model_copy(
            update={
                "drafter": self.drafter,
                "acceptance": self.acceptance,
                "run_id": self.name,
                "paths": settings.paths.model_copy(update={"data": str(folder / self.name)}),
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
    sets = {}
    for chosen in compared_sets(settings):
        own = chosen.applied_to(settings, folder)
        logger.info("knowledge set %s", chosen.name)
        report = generate_knowledge(own, open_progress, only)
        layout = DatasetLayout.of(own.paths.data, own.dataset.name).run(report.run_id)
        sets[chosen.name] = knowledge_dataset(layout).to_table()
    return sets


def describe_sets(sets: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """For each set: what was written, and how much of it is what greedy decoding wrote."""
    return [_described(name, rows, sets[GREEDY]) for name, rows in sets.items()]


def _described(name: str, rows: pa.Table, greedy: pa.Table) -> dict[str, Any]:
    repeated, total = count_repeated_ngrams(rows["token_ids"].combine_chunks())
    num_tokens = pc.sum(rows["num_output_tokens"]).as_py()
    return {
        "knowledge": name,
        "acceptance": sorted(pc.unique(rows["acceptance"]).to_pylist()),
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
