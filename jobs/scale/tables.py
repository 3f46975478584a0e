"""Costs and played runs as Markdown, and costs to and from JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.scale.speedup import Speedup
from pipeline.errors import DataError
from pipeline.scale.costs import Cost
from pipeline.scale.memory import Memory
from pipeline.scale.simulate import Machines, Played
from pipeline.storage.files import write_json

HOUR = 3600.0
MICRO = 1e6
MIB, GIB = 2**20, 2**30


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def costs_table(costs: list[Cost], num_rows: int, num_shards: int, num_workers: int) -> str:
    """Every cost per unit, and what it comes to at that size: once for the driver, per worker's use else."""
    sizes = {"row": num_rows, "shard": num_shards, "worker": num_workers}
    rows = []
    for cost in costs:
        whole = sizes[cost.unit] * cost.per_unit_sec
        measured = f"{cost.sizes[0]:,} to {cost.sizes[-1]:,} {cost.unit}s"
        each = f"{MICRO * cost.per_unit_sec:,.2f} µs"
        rows.append([cost.name, cost.where, measured, each, f"{cost.growth:.2f}", f"{whole:,.2f} s"])
    return markdown(["operation", "where", "measured at", "per unit", "growth", "at full size"], rows)


def memory_line(what: str, memory: Memory, size: int, unit: str) -> str:
    """The driver's memory for each `unit`, and at that size."""
    peaks = ", ".join(
        f"{peak / MIB:,.0f} MiB at {count:,}"
        for count, peak in zip(memory.sizes, memory.peak_bytes, strict=True)
    )
    whole = (memory.fixed_bytes + size * memory.per_unit_bytes) / GIB
    return (
        f"{what}: {memory.per_unit_bytes:,.0f} bytes a {unit} and {memory.fixed_bytes / MIB:,.0f} MiB "
        f"({peaks} {unit}s); {whole:,.1f} GiB at {size:,} {unit}s"
    )


def played_table(played: list[tuple[str, Machines, Played]]) -> str:
    """One line for each played run."""
    rows = []
    for name, machines, run in played:
        rows.append([
            name, f"{machines.num_workers:,}", f"{run.seconds / HOUR:,.2f} h", f"{run.efficiency:.1%}",
            f"{run.driver_share:.1%}", f"{run.num_lost:,}", f"{run.num_repeated:,}",
        ])  # fmt: skip
    header = ["run", "workers", "time", "of the ideal", "driver busy", "workers lost", "shards repeated"]
    return markdown(header, rows)


def speedup_table(speedup: Speedup) -> str:
    """The turns and their ratio."""
    rows = [
        [str(turn + 1), f"{one.seconds:.1f} s", f"{two.seconds:.1f} s", f"{two.seconds / one.seconds:.3f}"]
        for turn, (one, two) in enumerate(zip(speedup.one, speedup.two, strict=True))
    ]
    return markdown(["turn", "one worker", "two workers", "ratio"], rows)


def save_costs(costs: list[Cost], path: Path) -> None:
    """Write `costs` for `load_costs`."""
    write_json([asdict(cost) for cost in costs], path)


def load_costs(path: Path) -> dict[str, Cost]:
    """The costs that `save_costs` wrote, by name."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        costs = [
            Cost(**values | {"sizes": tuple(values["sizes"]), "seconds": tuple(values["seconds"])})
            for values in found
        ]
    except FileNotFoundError as error:
        raise DataError(f"{path}: not there; `python -m jobs.scale costs` writes it") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: no costs of `python -m jobs.scale costs` ({error})") from error
    return {cost.name: cost for cost in costs}
