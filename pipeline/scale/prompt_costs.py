"""What it costs to write the prompts of a real dataset, and to keep texts in pools."""

import time
from pathlib import Path

import numpy as np

from drafters.datastore import DatastoreBuilder, Document, StoreHeader
from pipeline.models import resolve_model
from pipeline.plan import select_entities
from pipeline.road import group_tables, read_tables, render_chosen
from pipeline.scale.costs import Cost
from pipeline.scale.synthetic import OUTPUT_TOKENS, VOCAB_SIZE
from pipeline.settings import RunSettings
from pipeline.storage.layout import models_folder

LIMITS = (100, 300, 1000)
NUM_TEXTS = (2000, 6000, 20000)


def measure_prompts(settings: RunSettings) -> list[Cost]:
    """Render the dataset's prompts, tokenizer included, for samples of growing size."""
    tables = read_tables(settings)
    groups = group_tables(settings, tables)
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    found = []
    for limit in LIMITS:
        chosen = select_entities(groups, limit)
        started = time.perf_counter()
        render_chosen(settings, tables, chosen, source)
        found.append((chosen.num_rows, time.perf_counter() - started))
    sizes, seconds = zip(*found, strict=True)
    return [Cost("write the prompts", "driver", "row", sizes, seconds)]


def measure_pools(folder: Path) -> list[Cost]:
    """Build one pool of so many texts of `OUTPUT_TOKENS` tokens."""
    seconds = []
    for number in NUM_TEXTS:
        tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, (number, OUTPUT_TOKENS), dtype=np.int32)
        builder = DatastoreBuilder(folder, StoreHeader(f"v{number}", VOCAB_SIZE, "0", source="scale"))
        started = time.perf_counter()
        builder.add("user", "all", (Document.of(str(row), text) for row, text in enumerate(tokens)))
        builder.finish(None)
        seconds.append(time.perf_counter() - started)
    return [Cost("build the pools", "driver", "row", NUM_TEXTS, tuple(seconds))]
