"""The evaluation from data to results: split, knowledge sets, vectors, trainings, statistics."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.domains import DomainTables
from pipeline.errors import ConfigError
from pipeline.evaluate.evaluation import Evaluation, find_all, find_warm
from pipeline.evaluate.features import make_inputs
from pipeline.evaluate.knowledge_sets import (
    OpenProgress,
    compared_sets,
    describe_sets,
    entity_table,
    generate_sets,
)
from pipeline.evaluate.results import GREEDY, KNOWLEDGE, Result, Trial
from pipeline.evaluate.split import (
    TEST,
    TRAIN,
    VALIDATION,
    Events,
    choose_cutoff,
    most_active,
    split_events,
)
from pipeline.evaluate.vectors import Encode, Vectors, knowledge_vectors
from pipeline.fingerprint import text_fingerprint
from pipeline.generate.ray_cluster import usable_cpus
from pipeline.models import resolve_model
from pipeline.road import read_tables
from pipeline.settings import RunSettings
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json, sha256_of_rows
from pipeline.storage.layout import DatasetLayout, models_folder

logger = logging.getLogger(__name__)
VERSION_CHARS = 8
MAX_PROCESSES = 16


def evaluation_folder(settings: RunSettings) -> Path:
    """Where results lie, and below it the knowledge sets of each version."""
    return DatasetLayout.of(settings.paths.data, settings.dataset.name).root / "evaluation"


def evaluate(
    settings: RunSettings,
    encode: Encode,
    open_progress: OpenProgress,
) -> Evaluation:
    """Compare all kinds of knowledge. Knowledge sets that are there are not generated again.

    `encode` is the sentence encoder; called once, when all texts are there.
    """
    _require_ctr_library()
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    tables = read_tables(settings)
    cutoff = choose_cutoff(tables.interactions, settings)
    model = settings.model.model_copy(update={"path": source.path})
    ids = most_active(tables.interactions, settings.limit, cutoff)
    events = split_events(tables.interactions, ids, cutoff, settings.evaluation)
    settings = settings.model_copy(update={"model": model, "history_cutoff": events.prompt_cutoff})
    version = settings.run_id or _version(settings, source.revision, ids, tables)
    sets = generate_sets(settings, entity_table(ids), evaluation_folder(settings) / version, open_progress)
    with stage("encoding the texts"):
        vectors = knowledge_vectors(sets, ids, GREEDY, settings.evaluation.dimension, encode)
    results = _train_all(settings, events, tables, vectors)
    meta = _meta(settings, events, sets, vectors)
    return Evaluation(
        version=version,
        digest=_digest(settings),
        meta=meta,
        results=results,
        everyone=find_all(results, events),
        warm=find_warm(results, events),
        goal=settings.evaluation.goal,
    )


def _require_ctr_library() -> None:
    """Before hours are spent on texts."""
    if find_spec("torch_rechub") is None:
        raise ConfigError("evaluate: torch-rechub is not installed; make ctr-tools installs it")


def _version(
    settings: RunSettings, model_revision: str, ids: dict[str, pa.Array], tables: DomainTables
) -> str:
    """A name for the knowledge sets: those of the same model, rules, entities and plan have the same.

    Whatever a prompt may show is part of it, and what the runs of a set are planned by: a run goes on only
    with the plan that it began with.
    """
    data = {name: getattr(tables, name) for name in ("users", "items", "interactions")}
    of_dataset = {"item_word", "min_rating", "max_rating", "item_groups", "user_groups"}
    content = {
        "texts": [
            text_fingerprint(settings.model, model_revision, settings.knowledge, chosen.acceptance)
            for chosen in compared_sets(settings)
        ],
        "prompts": settings.knowledge.model_dump(mode="json"),
        "dataset": settings.dataset.model_dump(mode="json", include=of_dataset),
        "data": {name: sha256_of_rows(table) for name, table in data.items()},
        "shard_size": settings.plan.shard_size,
        "drafter": settings.drafter.max_draft_tokens,
        "pools": "greedy texts of the other half",
        "cutoff": settings.history_cutoff,
        "ids": {kind: known.to_pylist() for kind, known in ids.items()},
    }
    return f"{settings.knowledge.name}-{settings.model.name}-{sha256_of_json(content)[:VERSION_CHARS]}"


def _digest(settings: RunSettings) -> str:
    """A name for what is done with the knowledge sets: models, seeds, training, split, encoder."""
    vectors = {"path", "revision", "backend", "normalize", "max_tokens", "prefix"}
    content = {
        "evaluation": settings.evaluation.model_dump(mode="json"),
        "encoder": settings.encoder.model_dump(mode="json", include=vectors),
    }
    return sha256_of_json(content)[:VERSION_CHARS]


def _train_all(
    settings: RunSettings, events: Events, tables: DomainTables, vectors: dict[str, Vectors]
) -> list[Result]:
    from pipeline.evaluate.train import Workbench, run_trials

    evaluation = settings.evaluation
    bench = Workbench(
        inputs=make_inputs(events, tables, evaluation.max_user_history),
        events=events,
        knowledge=vectors,
        training=evaluation.training,
    )
    trials = [
        Trial(model, knowledge, seed)
        for model in evaluation.models
        for knowledge in KNOWLEDGE
        for seed in range(evaluation.num_seeds)
    ]
    finished: list[Result] = []

    def note(result: Result) -> None:
        finished.append(result)
        say(f"training CTR models: {len(finished)} of {len(trials)} done")
        if len(finished) % evaluation.num_seeds == 0:
            aucs = [one.auc for one in finished[-evaluation.num_seeds :]]
            logger.info("%s, knowledge %s: AUC %.4f", result.model, result.knowledge, np.mean(aucs))

    with stage(f"training {len(trials)} CTR models") as say:
        return run_trials(bench, trials, min(usable_cpus(), MAX_PROCESSES), note)


def _meta(
    settings: RunSettings,
    events: Events,
    sets: dict[str, pa.Table],
    vectors: dict[str, Vectors],
) -> dict[str, Any]:
    parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return {
        "dataset": settings.dataset.name,
        "model": settings.model.name,
        "prompt_set": settings.knowledge.name,
        "max_tokens": {
            "user": settings.knowledge.user.max_tokens,
            "item": settings.knowledge.item.max_tokens,
        },
        "encoder": settings.encoder.path,
        "dimension": settings.evaluation.dimension,
        "history_cutoff": events.prompt_cutoff.isoformat(),
        "test_from": events.cutoff.isoformat(),
        "num_users": len(events.user_ids),
        "num_items": len(events.item_ids),
        "num_interactions": events.num_interactions,
        "num_evaluated": {name: len(events.of_part(part)) for name, part in parts.items()},
        "num_test_warm": len(events.warm),
        "positive_share_of_test": float(events.labels[events.of_part(TEST)].mean()),
        "with_knowledge": {
            name: {kind: float(table[1:, -1].mean()) for kind, table in kinds.items()}
            for name, kinds in vectors.items()
        },
        "sets": describe_sets(sets),
        "evaluation": settings.evaluation.model_dump(mode="json"),
    }
