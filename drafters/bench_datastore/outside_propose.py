"""What a request costs outside `propose`: its start, and the teaching of its text to the others."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from drafters.bench_datastore.texts import PHRASE_TOKENS, TextGenerator
from drafters.bench_datastore.workload import NUM_REQUESTS, POOL_SEED, TAUGHT_SEED, PoolSpec, recordings
from drafters.datastore import DOMAIN_GROUP, Datastore, DatastoreBuilder, Document, StoreHeader
from drafters.replay.laser_method import KIND, TOKENIZER, LaserReplay
from drafters.replay.simulator import ReplayDrafter
from drafters.replay.traces import Recording

NUM_POOLS = 500  # groups of a large dataset; a start looks for an unseen entity in all of them
START_REPEATS = 20
MAX_DRAFT_TOKENS = 16
FIXED_PRICE = 0.05
NUM_TAUGHT = 256


def start_and_teach(folder: Path, spec: PoolSpec) -> dict[str, Any]:
    """LASER: the start of requests of entities that no pool knows, and the teaching of finished texts.

    The first batch of starts stands apart: of a store that was just opened nothing is in memory.
    """
    datastore = build_many_pools(folder, spec)
    groups = [group for _, group, _ in datastore.pools() if group != DOMAIN_GROUP]
    drafter = LaserReplay(datastore, FIXED_PRICE, MAX_DRAFT_TOKENS)
    requests = recordings(spec, TAUGHT_SEED, NUM_REQUESTS)
    spread = [replace(r, group=groups[n % len(groups)]) for n, r in enumerate(requests)]
    first = start_sec(drafter, spread)
    again = [start_sec(drafter, spread) for _ in range(START_REPEATS)]
    return {
        "num_pools": len(groups),
        "start_first_us_per_request": first / NUM_REQUESTS * 1e6,
        "start_us_per_request": float(np.median(again)) / NUM_REQUESTS * 1e6,
        "teach_us_per_token": _teach_sec_per_token(drafter, spec) * 1e6,
    }


def build_many_pools(folder: Path, spec: PoolSpec) -> Datastore:
    """As many texts as the pool of `spec` has, spread evenly over `NUM_POOLS` groups.

    Each is cut to its first phrase: to find no text of an entity, no token is read.
    """
    names = [f"g{number}" for number in range(min(NUM_POOLS, spec.num_texts))]
    builder = DatastoreBuilder(folder, StoreHeader("many", spec.vocab_size, TOKENIZER, source="generated"))
    texts = [text[:PHRASE_TOKENS] for text in TextGenerator(spec.vocab_size, POOL_SEED).texts(spec.num_texts)]
    for number, name in enumerate(names):
        mine = range(number, len(texts), len(names))
        builder.add(KIND, name, [Document.of(str(n), texts[n]) for n in mine])
    return Datastore.open(builder.finish(), TOKENIZER, spec.vocab_size)


def start_sec(drafter: ReplayDrafter, requests: Sequence[Recording]) -> float:
    """Seconds that `drafter` takes to start all `requests`; it is left without any."""
    started = time.perf_counter()
    for row, request in enumerate(requests):
        drafter.start(row, request)
    seconds = time.perf_counter() - started
    for row in range(len(requests)):
        drafter.finish(row)
    return seconds


def _teach_sec_per_token(drafter: LaserReplay, spec: PoolSpec) -> float:
    """Texts are taught one by one, the dearest way: each is indexed as soon as it is finished."""
    texts = TextGenerator(spec.vocab_size, TAUGHT_SEED).texts(NUM_TAUGHT)
    documents = [Document.of(f"taught-{number}", text) for number, text in enumerate(texts)]
    started = time.perf_counter()
    for document in documents:
        drafter.drafter.teach(KIND, [document])
    seconds = time.perf_counter() - started
    return seconds / sum(len(document.token_ids) for document in documents)
