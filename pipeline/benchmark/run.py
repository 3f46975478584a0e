"""Runs the comparison: every cell is measured with all methods in turn, several times."""

import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from pipeline.bench_settings import BenchSettings
from pipeline.benchmark.engine_process import EngineProcess, Window
from pipeline.benchmark.methods import STRICT, compared_methods, strict_laser
from pipeline.benchmark.rows import BenchRow, bench_rows
from pipeline.benchmark.workload import (
    Workload,
    build_pools,
    make_workloads,
    num_fillers,
    num_texts,
    published_texts,
    read_texts,
    write_texts,
)
from pipeline.environment import reject_unfit_build
from pipeline.fingerprint import text_fingerprint
from pipeline.generate.contract import WorkerSpec
from pipeline.generate.engine import TextRequest
from pipeline.models import ModelSource, resolve_model
from pipeline.models.tokenizer import vocabulary_size
from pipeline.settings import Kind, RunSettings
from pipeline.stages import stage
from pipeline.storage.files import sha256_of_json, write_json
from pipeline.storage.layout import models_folder

logger = logging.getLogger(__name__)

CPU_KV_CACHE_GIB = 2  # each of the engines that stand side by side


def run_benchmark(settings: RunSettings, folder: Path) -> list[BenchRow]:
    """Measure all methods; rows, texts and pools are kept in `folder`."""
    reject_unfit_build()
    folder.mkdir(parents=True, exist_ok=True)
    settings = _side_by_side(settings)
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    workloads = make_workloads(settings, source)
    spec = _spec(settings, source, folder)
    if settings.bench.use_published:
        pool = published_texts(settings, source, workloads)
    else:
        pool = _pool_texts(spec, workloads, folder)
    vocab_size = vocabulary_size(source.path, settings.model.trust_remote_code)
    with stage("building the token pools", is_short=True):
        store = build_pools(pool, folder / "datastore", vocab_size, source.tokenizer_hash)
    spec = replace(spec, datastore=str(store.resolve()), datastore_version=store.name)
    engines = _start_engines(spec, pool)
    try:
        _warm_up(engines, workloads)
        rows: list[BenchRow] = []
        for cell in _cells(engines, workloads, settings.bench):
            rows += cell
            write_json(
                [asdict(row) for row in rows], folder / "generation.json"
            )  # a stopped bench keeps them
        return rows
    finally:
        for process in engines.values():
            process.close()


def _side_by_side(settings: RunSettings) -> RunSettings:
    """`settings` with room for the largest batch, and with the memory shared among the engines."""
    engine = settings.engine
    changes = {
        "max_num_seqs": max(*settings.bench.concurrencies, engine.max_num_seqs),
        "cpu_kv_cache_gib": min(CPU_KV_CACHE_GIB, engine.cpu_kv_cache_gib),
        "gpu_memory_utilization": engine.gpu_memory_utilization / len(compared_methods(settings)),
    }
    return settings.model_copy(update={"engine": engine.model_copy(update=changes)})


def machine_description() -> str:
    """The GPU if one is used, the processor and its usable cores."""
    import torch

    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    gpu = f"{torch.cuda.get_device_name(0)}, " if torch.cuda.is_available() else ""
    return f"{gpu}{len(os.sched_getaffinity(0))} cores, {names[0] if names else platform.processor()}"


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


def _pool_name(spec: WorkerSpec, requests: list[TextRequest]) -> str:
    """Names what the pool's texts depend on: model, sampling, and the very prompts."""
    settings = spec.settings
    prompts = [[r.kind, r.group, r.entity_id, r.max_tokens, list(r.prompt_token_ids)] for r in requests]
    fingerprint = text_fingerprint(settings.model, spec.model_revision, settings.knowledge, STRICT)
    return f"pool-{sha256_of_json([fingerprint, prompts])[:12]}"


def _pool_texts(spec: WorkerSpec, workloads: dict[Kind, Workload], folder: Path) -> pa.Table:
    """The texts of the pool's entities: greedy decoding, once for each model and set of prompts."""
    requests = [request for workload in workloads.values() for request in workload.pool]
    path = folder / f"{_pool_name(spec, requests)}.parquet"
    if path.exists():
        return read_texts(path)
    settings = strict_laser(spec.settings).applied_to(spec.settings)
    with stage(f"writing the {len(requests)} texts of the warm pool (once)"):
        engine = EngineProcess(replace(spec, settings=settings), [])
        try:
            return write_texts(path, requests, engine.write(requests))
        finally:
            engine.close()


def _start_engines(spec: WorkerSpec, pool: pa.Table) -> dict[str, EngineProcess]:
    """An engine for each method, by its name."""
    texts = pool["token_ids"].to_pylist()
    engines = {}
    for method in compared_methods(spec.settings):
        with stage(f"starting the engine of {method.name}"):
            settings = method.applied_to(spec.settings)
            engines[method.name] = EngineProcess(replace(spec, settings=settings), texts)
    return engines


def _warm_up(engines: dict[str, EngineProcess], workloads: dict[Kind, Workload]) -> None:
    """Native code, prices and calibration: on other entities."""
    for method, engine in engines.items():
        with stage(f"warming up {method}"):
            for workload in workloads.values():
                engine.write(workload.warmup)
                engine.measure(workload.warmup[:2], [], 1)


def _cells(
    engines: dict[str, EngineProcess], workloads: dict[Kind, Workload], bench: BenchSettings
) -> Iterator[list[BenchRow]]:
    """The rows of each kind and concurrency, as they are measured."""
    for kind, workload in workloads.items():
        for concurrency in bench.concurrencies:
            rows = bench_rows(kind, concurrency, _measure_cell(engines, workload, kind, concurrency))
            logger.info("%s", "; ".join(_line(row) for row in rows))
            yield rows


def _line(row: BenchRow) -> str:
    return f"{row.kind} x{row.concurrency} {row.method} {row.ratio_to_none:.2f}"


def _measure_cell(
    engines: dict[str, EngineProcess], workload: Workload, kind: Kind, concurrency: int
) -> dict[str, list[Window]]:
    """All methods in turn, round by round; each round has other texts and begins with another method."""
    methods = list(engines)
    windows: dict[str, list[Window]] = {method: [] for method in methods}
    measured = f"measuring {kind}s, {concurrency} at once"
    with stage(measured) as say:
        for number, texts in enumerate(workload.rounds):
            shift = number % len(methods)
            for method in methods[shift:] + methods[:shift]:
                say(f"{measured}, round {number + 1} of {len(workload.rounds)}: {method}")
                requests = texts[: num_texts(concurrency)]
                fillers = workload.fillers[: num_fillers(concurrency)]
                windows[method].append(engines[method].measure(requests, fillers, concurrency))
    return windows
