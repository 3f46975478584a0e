"""The measurements. Each runs in a process of its own, so that memory is counted from zero.

Everything runs on one thread: what is said of one core holds for one.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from drafters.bench_datastore.outside_propose import start_and_teach, start_sec
from drafters.bench_datastore.texts import TEXT_TOKENS, TextGenerator
from drafters.bench_datastore.workload import (
    GROUP,
    NUM_REQUESTS,
    POOL_SEED,
    REQUEST_SEED,
    WARM_SEED,
    PoolSpec,
    recordings,
)
from drafters.datastore import Datastore, DatastoreBuilder, Document, StoreHeader
from drafters.datastore.format import token_dtype
from drafters.datastore.segment import Segment
from drafters.replay.arctic_method import ArcticReplay, ArcticSetting, build_tree
from drafters.replay.laser_method import KIND, TOKENIZER, LaserReplay, warm_calibration
from drafters.replay.simulator import Int32, Int64, ReplayDrafter, replay

NUM_WARM_TEXTS = 64
OPEN_REPEATS = 5
MAX_DRAFT_TOKENS = 16
ARCTIC_DEFAULTS = ArcticSetting(1.0, 0.0, 0.1)
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# The machine that the price rule is told of: a GPU far from saturation, where drafts are long. That is
# the dearest case for the drafter.
STEP_BASE_SEC = 30e-3
STEP_MARGINAL_SEC = 20e-6


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` in a fresh process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def build(folder: Path, spec: PoolSpec) -> dict[str, Any]:
    """Build a datastore version of one group, with the domain pool that goes with it."""
    texts = list(TextGenerator(spec.vocab_size, POOL_SEED).texts(spec.num_texts))
    Segment.build([Document(0, texts[0])], token_dtype(spec.vocab_size))  # loads what is not to be counted
    before = _resident_bytes()
    started = time.perf_counter()
    builder = DatastoreBuilder(folder, StoreHeader("bench", spec.vocab_size, TOKENIZER, source="generated"))
    builder.add(KIND, GROUP, (Document.of(str(number), text) for number, text in enumerate(texts)))
    version = builder.finish()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    datastore = _open(folder, spec)
    num_tokens = datastore.num_tokens
    num_bytes = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    return {
        "num_tokens": num_tokens,
        "bytes_per_token": num_bytes / _num_stored_tokens(datastore),
        "store_bytes_per_token": num_bytes / num_tokens,
        "build_tokens_per_sec": num_tokens / seconds,
        "build_sec": seconds,
        "build_peak_bytes": max(0, peak - before),
    }


def open_and_touch(folder: Path, spec: PoolSpec) -> dict[str, Any]:
    """Median time to open the version; what it occupies in memory when every page has been read."""
    seconds = []
    for _ in range(OPEN_REPEATS):
        started = time.perf_counter()
        datastore = _open(folder, spec)
        seconds.append(time.perf_counter() - started)
    for _, _, segments in datastore.pools():
        for segment in segments:
            for array in (segment.tokens, segment.index, segment.docs, segment.entities):
                array.view(np.uint8)[:: PAGE_BYTES // 2].sum()
    resident = _mapped_resident_bytes(folder)
    return {
        "open_ms": float(np.median(seconds)) * 1e3,
        "resident_bytes_per_token": resident / _num_stored_tokens(datastore),
    }


def draft_laser(folder: Path, spec: PoolSpec) -> dict[str, Any]:
    """All that drafting costs: in `propose`, and outside it over many pools."""
    return propose_laser(folder, spec) | start_and_teach(folder, spec)


def propose_laser(folder: Path, spec: PoolSpec) -> dict[str, Any]:
    """Whole `propose()` calls of 64 requests on one thread, the price rule included."""
    datastore = _open(folder, spec)
    calibration = warm_calibration(datastore, recordings(spec, WARM_SEED, NUM_WARM_TEXTS), MAX_DRAFT_TOKENS)
    drafter = LaserReplay(datastore, None, MAX_DRAFT_TOKENS, calibration)
    for num_tokens in (NUM_REQUESTS, 4 * NUM_REQUESTS, 16 * NUM_REQUESTS):
        seconds = STEP_BASE_SEC + STEP_MARGINAL_SEC * num_tokens
        for _ in range(4):
            drafter.drafter.step_time.observe(num_tokens, seconds)
    return _propose(drafter, spec)


def propose_arctic(spec: PoolSpec) -> dict[str, Any]:
    """Arctic's suffix tree, called for each of 64 requests as vLLM does; also how it is built.

    The tree lies in memory only, so what a token takes is its share of the resident memory. New tokens are
    added to it in `propose`: nothing is left to be taught.
    """
    texts = list(TextGenerator(spec.vocab_size, POOL_SEED).texts(spec.num_texts))
    num_tokens = len(texts) * (TEXT_TOKENS + 1)
    before = _resident_bytes()
    started = time.perf_counter()
    cache = build_tree(texts)
    seconds = time.perf_counter() - started
    resident = _resident_bytes() - before
    drafter = ArcticReplay(cache, ARCTIC_DEFAULTS, MAX_DRAFT_TOKENS)
    requests = recordings(spec, REQUEST_SEED, NUM_REQUESTS)
    return {
        "num_tokens": num_tokens,
        "bytes_per_token": resident / num_tokens,
        "resident_bytes_per_token": resident / num_tokens,
        "build_tokens_per_sec": num_tokens / seconds,
        "build_sec": seconds,
        "build_peak_bytes": resident,
        "start_us_per_request": start_sec(drafter, requests) / NUM_REQUESTS * 1e6,
        **_propose(drafter, spec),
    }


class _Timed:
    """Passes calls on; keeps the seconds of the calls with a full batch."""

    def __init__(self, drafter: ReplayDrafter) -> None:
        self._drafter = drafter
        self.seconds: list[float] = []
        self.start, self.finish = drafter.start, drafter.finish

    def propose(self, rows: Int64, context: Int32, num_tokens: Int64) -> list[list[int]]:
        started = time.perf_counter()
        drafts = self._drafter.propose(rows, context, num_tokens)
        if len(rows) == NUM_REQUESTS:
            self.seconds.append(time.perf_counter() - started)
        return drafts


def _propose(drafter: ReplayDrafter, spec: PoolSpec) -> dict[str, Any]:
    timed = _Timed(drafter)
    result = replay(timed, recordings(spec, REQUEST_SEED, 4 * NUM_REQUESTS), NUM_REQUESTS)
    median = float(np.median(timed.seconds))
    return {
        "propose_us_per_request": median / NUM_REQUESTS * 1e6,
        "propose_ms_64_requests": median * 1e3,
        "propose_ms_64_requests_p95": float(np.quantile(timed.seconds, 0.95)) * 1e3,
        "tokens_per_step": result.tokens_per_step,
        "drafted_per_step": result.drafted_per_step,
    }


def _open(folder: Path, spec: PoolSpec) -> Datastore:
    return Datastore.open(folder / "bench", TOKENIZER, spec.vocab_size)


def _num_stored_tokens(datastore: Datastore) -> int:
    """Tokens of all pools; the domain pool repeats documents of the groups' pools, up to its budget."""
    return sum(segment.num_tokens for _, _, segments in datastore.pools() for segment in segments)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def _mapped_resident_bytes(folder: Path) -> int:
    """Resident bytes of this process's mappings of files below `folder`, by the kernel's account."""
    total, counted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counted = str(folder) in line
        elif counted and words[0] == "Rss:":
            total += int(words[1]) * 1024
    return total
