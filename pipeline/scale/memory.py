"""How much memory the driver takes to read its raw data and to plan a run, for each user and row of it."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.domains import read_domain
from pipeline.groups import group_entities
from pipeline.outline import outline_plan, shards_in_full
from pipeline.plan import is_plan_of, reject_later_events
from pipeline.plan_file import write_shards
from pipeline.prompts.histories import Histories
from pipeline.scale.raw_movielens import write_movielens
from pipeline.scale.synthetic import prompt_batches
from pipeline.schemas import PROMPTS
from pipeline.settings import RunSettings
from pipeline.spool import spooled
from pipeline.storage.files import sha256_of_rows
from pipeline.storage.layout import RunLayout
from pipeline.storage.parts import planned_shards

SECONDS_PER_LOOK = 0.005
RATINGS_PER_USER = 20
NUM_MOVIES = 10_000


@dataclass(frozen=True)
class Memory:
    """The most anonymous memory of a driver at several sizes of its run; a size is a number of rows or users.

    Pages of mapped files are not counted: the system takes them back when it wants memory.
    """

    sizes: tuple[int, ...]
    peak_bytes: tuple[int, ...]

    @property
    def per_unit_bytes(self) -> float:
        """The slope of the line through the measurements."""
        return float(np.polyfit(self.sizes, self.peak_bytes, 1)[0])

    @property
    def fixed_bytes(self) -> float:
        """What a driver takes for no rows at all: the interpreter, libraries, one block of rows in full."""
        return float(np.polyfit(self.sizes, self.peak_bytes, 1)[1])


def measure_memory(folder: Path, num_rows: list[int], shard_size: int) -> Memory:
    """Plan runs of these sizes (at least two) below `folder`, each in a process of its own."""
    runs = {size: RunLayout(folder / f"memory-{size}") for size in num_rows}
    peaks = [peak_bytes(plan_made_up_run, run, size, shard_size) for size, run in runs.items()]
    return Memory(tuple(runs), tuple(peaks))


def measure_raw_memory(folder: Path, num_users: list[int], settings: RunSettings) -> Memory:
    """Read, group and sort made-up ratings of so many users (at least two sizes), each in its own process."""
    peaks = []
    for size in num_users:
        raw = folder / f"raw-{size}"
        write_movielens(raw, size * RATINGS_PER_USER, size, NUM_MOVIES)
        peaks.append(peak_bytes(read_made_up_ratings, raw, settings))
    return Memory(tuple(num_users), tuple(peaks))


def peak_bytes(function: Callable[..., None], *arguments: Any) -> int:
    """The most anonymous memory of a process that does nothing but call `function`. Linux."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, _anonymous_bytes(process.pid))
        time.sleep(SECONDS_PER_LOOK)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} ended with exit code {process.exitcode}")
    return peak


def _anonymous_bytes(pid: int | None) -> int:
    """Anonymous resident memory of process `pid`; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = status.partition("RssAnon:")
    return 1024 * int(rest.split()[0]) if found else 0


def plan_made_up_run(layout: RunLayout, num_rows: int, shard_size: int) -> None:
    """What a driver does from its first prompt to its first shard, and again when the run is resumed."""
    prompts = spooled(prompt_batches(num_rows), PROMPTS, layout.root)
    reject_later_events(prompts, None)
    plan = outline_plan(prompts, shard_size, scope_of=lambda kind, group: "kind")
    sha256_of_rows(plan)
    write_shards(shards_in_full(plan, prompts), layout.plan)
    if not is_plan_of(plan, layout.plan):
        raise RuntimeError("the plan on disk is not the plan that was made")
    planned_shards(plan)


def read_made_up_ratings(raw: Path, settings: RunSettings) -> None:
    """What a driver does from the raw files in `raw` to its first prompt, with every user chosen."""
    tables = read_domain(settings.dataset.model_copy(update={"raw": str(raw)}))
    groups = group_entities(tables, settings.dataset)
    users, items = (column.combine_chunks() for column in (tables.users["user_id"], tables.items["item_id"]))
    histories = Histories(tables.interactions, users, items, None, settings.knowledge.max_history)
    if groups.num_rows != len(users) + len(items) or not histories.num_ratings.all():
        raise RuntimeError("made-up users were lost")
