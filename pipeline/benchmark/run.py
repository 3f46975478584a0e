"""Runs the comparison: every cell is measured with all methods in turn, several times."""

import logging
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from pipeline.benchmark.engine_process import EngineProcess, Window
from pipeline.benchmark.methods import STRICT, Method, compared_methods
from pipeline.benchmark.workload import (
    Workload,
    build_pools,
    make_workloads,
    read_texts,
    write_texts,
)
from pipeline.fingerprint import text_fingerprint
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.engine import TextRequest, WrittenText
from pipeline.generate.summary import count_repeated_ngrams, repeated_shares
from pipeline.models import ModelSource, resolve_model
from pipeline.models.tokenizer import vocabulary_size
from pipeline.settings import BenchSettings, Kind, RunSettings
from pipeline.storage.layout import models_folder

logger = logging.getLogger(__name__)


MIN_TEXTS = 4
LOOPING = 0.02  # share of repeated 8-grams from which a text is said to loop
CPU_KV_CACHE_GIB = 2  # each of the engines that stand side by side


def num_texts(concurrency: int) -> int:
    """Requests of one measurement: enough to keep the batch full for about one and a half texts."""
    return max(MIN_TEXTS, concurrency + concurrency // 2)


@dataclass(frozen=True)
class BenchRow:
    """One method in one cell. Ratios compare with `none` in the same round."""

    method: str
    concurrency: int
    kind: str
    tokens_per_sec: float  # median of the rounds
    ratio_to_none: float  # median of the rounds
    ratio_low: float
    ratio_high: float
    tokens_per_step: float  # of a request
    drafted_per_step: float  # of a request
    drafter_ms_per_step: float  # of the engine's step
    looping_share: float  # of 8-grams, those that stood in the same text before
    tokens_per_step_without_loops: float  # of the texts that hardly loop; 0 if there is none
    ms_per_step: float  # of the engine's step


def run_benchmark(settings: RunSettings, folder: Path) -> list[BenchRow]:
    """Measure all methods; texts and pools are kept in `folder` for the next time."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = settings.bench
    largest = max(bench.concurrencies)
    engine = settings.engine.model_copy(
        update={
            "max_num_seqs": max(largest, settings.engine.max_num_seqs),
            "cpu_kv_cache_gib": min(CPU_KV_CACHE_GIB, settings.engine.cpu_kv_cache_gib),
        }
    )
    settings = settings.model_copy(update={"engine": engine})
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    workloads = make_workloads(settings, source, bench.num_pool, bench.num_warmup, num_texts(largest))
    spec = _spec(settings, source, folder)
    pool = _pool_texts(spec, workloads, folder)
    version = f"pools-{_pool_name(spec)}-{pool.num_rows}"
    vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
    store = build_pools(pool, folder / "datastore", version, vocab_size, source.tokenizer_hash)
    spec = replace(spec, datastore=str(store.resolve()), datastore_version=version)
    engines = _start_engines(spec, pool)
    try:
        _warm_up(engines, workloads)
        return _measure_all(engines, workloads, bench)
    finally:
        for process in engines.values():
            process.close()


def machine_description() -> str:
    """The processor and its usable cores."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{len(os.sched_getaffinity(0))} cores, {names[0] if names else platform.processor()}"


def _spec(settings: RunSettings, source: ModelSource, folder: Path) -> WorkerSpec:
    return WorkerSpec(
        settings=settings,
        model_path=source.path,
        model_revision=source.revision,
        tokenizer_hash=source.tokenizer_hash,
        fingerprint="bench",
        run_id="bench",
        datastore=None,
        datastore_version=None,
        run_log=str((folder / "engines.log").resolve()),
    )


def _pool_name(spec: WorkerSpec) -> str:
    settings = spec.settings
    return text_fingerprint(settings.model, spec.model_revision, settings.knowledge, STRICT)


def _pool_texts(spec: WorkerSpec, workloads: dict[Kind, Workload], folder: Path) -> pa.Table:
    """The texts of the pool's entities: greedy decoding, once for each model and prompt set."""
    requests = [request for workload in workloads.values() for request in workload.pool]
    path = folder / f"pool-{_pool_name(spec)}-{len(requests)}.parquet"
    texts = read_texts(path, requests)
    if texts is not None:
        return texts
    logger.info("writing the %d texts of the warm pool (once)", len(requests))
    strict = next(method for method in compared_methods(spec.settings) if method.name == "laser-strict")
    engine = EngineProcess(replace(spec, settings=strict.applied_to(spec.settings)), [])
    try:
        return write_texts(path, requests, engine.write(requests))
    finally:
        engine.close()


def _start_engines(spec: WorkerSpec, pool: pa.Table) -> dict[Method, EngineProcess]:
    texts = pool["token_ids"].to_pylist()
    engines = {}
    for method in compared_methods(spec.settings):
        logger.info("starting %s", method.name)
        engines[method] = EngineProcess(replace(spec, settings=method.applied_to(spec.settings)), texts)
    return engines


def _warm_up(engines: dict[Method, EngineProcess], workloads: dict[Kind, Workload]) -> None:
    """Native code, prefix cache of the measured prompts, prices and calibration: on other entities."""
    for method, engine in engines.items():
        logger.info("warming up %s", method.name)
        for workload in workloads.values():
            engine.write([replace(request, max_tokens=1) for request in workload.measured])
            engine.write(workload.warmup)
            engine.measure(workload.warmup[:2], 1)


def _measure_all(
    engines: dict[Method, EngineProcess], workloads: dict[Kind, Workload], bench: BenchSettings
) -> list[BenchRow]:
    rows: list[BenchRow] = []
    for kind, workload in workloads.items():
        for concurrency in bench.concurrencies:
            requests = workload.measured[: num_texts(concurrency)]
            rows += _measure_cell(engines, requests, kind, concurrency, bench.num_repeats)
            logger.info("%s", "; ".join(_line(row) for row in rows[-len(engines) :]))
    return rows


def _line(row: BenchRow) -> str:
    return f"{row.kind} x{row.concurrency} {row.method} {row.ratio_to_none:.2f}"


def _measure_cell(
    engines: dict[Method, EngineProcess],
    requests: list[TextRequest],
    kind: Kind,
    concurrency: int,
    num_repeats: int,
) -> list[BenchRow]:
    """All methods in turn, round by round; each round begins with another method."""
    methods = list(engines)
    windows: dict[Method, list[Window]] = {method: [] for method in methods}
    for number in range(num_repeats):
        shift = number % len(methods)
        for method in methods[shift:] + methods[:shift]:
            windows[method].append(engines[method].measure(requests, concurrency))
    baseline = [_rate(window) for window in windows[methods[0]]]
    return [_row(method, kind, concurrency, windows[method], baseline) for method in methods]


def _rate(window: Window) -> float:
    return window.num_tokens / window.seconds


def _row(
    method: Method, kind: Kind, concurrency: int, windows: list[Window], baseline: list[float]
) -> BenchRow:
    rates = [_rate(window) for window in windows]
    ratios = [rate / base for rate, base in zip(rates, baseline, strict=True)]
    texts = [text for window in windows for text in window.texts]
    num_steps = max(sum(text.num_decode_steps for text in texts), 1)
    token_ids = pa.array([t.token_ids for t in texts], pa.list_(pa.int32()))
    repeated, total = count_repeated_ngrams(token_ids)
    without_loops = [t for t, share in zip(texts, repeated_shares(token_ids), strict=True) if share < LOOPING]
    engine_steps = max(sum(window.num_steps for window in windows), 1)
    return BenchRow(
        method=method.name,
        concurrency=concurrency,
        kind=kind,
        tokens_per_sec=median(rates),
        ratio_to_none=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        tokens_per_step=_tokens_per_step(texts),
        drafted_per_step=sum(text.num_draft_tokens for text in texts) / num_steps,
        drafter_ms_per_step=1000.0 * sum(window.drafter_sec for window in windows) / engine_steps,
        looping_share=repeated / total if total else 0.0,
        tokens_per_step_without_loops=_tokens_per_step(without_loops),
        ms_per_step=1000.0 * sum(window.seconds for window in windows) / engine_steps,
    )


def _tokens_per_step(texts: list[WrittenText]) -> float:
    return sum(len(t.token_ids) for t in texts) / max(sum(t.num_decode_steps for t in texts), 1)


def as_dicts(rows: list[BenchRow]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [asdict(row) for row in rows]
