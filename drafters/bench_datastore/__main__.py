"""`python -m drafters.bench_datastore`: costs of the token datastore, beside Arctic's suffix tree."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Libraries are imported where they are used: --help works before anything is installed.
if TYPE_CHECKING:
    from drafters.bench_datastore.workload import PoolSpec

logger = logging.getLogger(__name__)
DEFAULT_SIZES = (100_000, 1_000_000, 10_000_000)
LARGE_SIZE = 100_000_000
SMALL_VOCABULARY, LARGE_VOCABULARY = 49_152, 152_064  # SmolLM2: 2 bytes a token; Qwen2.5: 4 bytes
ARCTIC_BYTES_PER_TOKEN = 450  # while it is built, with the texts themselves
MAX_MEMORY_SHARE = 0.6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every pool size; print the table and the targets, write the rows. Returns the exit code."""
    options = _parser().parse_args(arguments)
    from drafters.bench_datastore.report import table, targets
    from drafters.bench_datastore.workload import PoolSpec

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sizes = [*options.pool_tokens, *([LARGE_SIZE] if options.large else [])]
    specs = [PoolSpec(size, vocabulary) for vocabulary in options.vocab_size for size in sizes]
    rows = []
    for spec in specs:
        rows.append(_measure_laser(spec))
        is_first = spec.vocab_size == options.vocab_size[0]  # the tree does not depend on the vocabulary
        if is_first and (arctic := _measure_arctic(spec)):
            rows.append(arctic)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n\n{targets(rows)}\n\nwritten: {options.json}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m drafters.bench_datastore", description=__doc__)
    parser.add_argument("--pool-tokens", type=int, nargs="+", default=DEFAULT_SIZES, metavar="N")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE_SIZE:,} tokens (minutes)")
    parser.add_argument(
        "--vocab-size",
        type=int,
        nargs="+",
        default=[SMALL_VOCABULARY, LARGE_VOCABULARY],
        metavar="N",
        help=f"beyond 65535 a token takes 4 bytes ({LARGE_VOCABULARY} is Qwen2.5's); default %(default)s",
    )
    parser.add_argument("--json", type=Path, default=Path("data/bench/datastore.json"))
    return parser


def _measure_laser(spec: PoolSpec) -> dict[str, Any]:
    from drafters.bench_datastore.measure import build, draft_laser, in_own_process, open_and_touch

    logger.info("laser: %s tokens, vocabulary of %s", f"{spec.pool_tokens:,}", f"{spec.vocab_size:,}")
    with tempfile.TemporaryDirectory(prefix="bench-datastore-") as name:
        folder = Path(name)
        row = {**_head("laser", spec), **in_own_process(build, folder, spec)}
        row |= in_own_process(open_and_touch, folder, spec)
        return row | in_own_process(draft_laser, folder, spec)


def _measure_arctic(spec: PoolSpec) -> dict[str, Any] | None:
    from drafters.bench_datastore.measure import in_own_process, propose_arctic
    from drafters.replay.arctic_method import ArcticMissingError, load_cache_class

    try:
        load_cache_class()
    except ArcticMissingError as error:
        logger.warning("%s", error)
        return None
    if spec.pool_tokens * ARCTIC_BYTES_PER_TOKEN > MAX_MEMORY_SHARE * _available_bytes():
        logger.warning("arctic: %s tokens do not fit in memory, left out", f"{spec.pool_tokens:,}")
        return None
    logger.info("arctic: %s tokens", f"{spec.pool_tokens:,}")
    measured = in_own_process(propose_arctic, spec)
    return {**_head("arctic", spec), "open_ms": None, **measured}


def _available_bytes() -> int:
    """Memory to be had, page cache that can be given back included."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _head(method: str, spec: PoolSpec) -> dict[str, Any]:
    return {"method": method, "pool_tokens": spec.pool_tokens, "vocab_size": spec.vocab_size}


if __name__ == "__main__":
    sys.exit(main())
