"""`python -m jobs.scale`: what more workers bring, measured and played through."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from jobs.cli import entry_point
from jobs.scale.speedup import measure_speedup, shard_spans
from jobs.scale.tables import (
    costs_table,
    load_costs,
    memory_line,
    played_table,
    save_costs,
    speedup_table,
)
from pipeline.errors import ConfigError
from pipeline.scale.costs import Cost, measure_costs
from pipeline.scale.memory import measure_memory, measure_raw_memory
from pipeline.scale.simulate import SHARDS_PER_WORKER, DriverCosts, Machines, Played, Workload, simulate
from pipeline.settings import RunSettings
from pipeline.storage.files import write_json
from pipeline.storage.layout import RunLayout

SUMMARY = """\
What more workers bring.

Verbs
  speedup   generate with one worker of one core and with two, in turn (key=value as in jobs.generate)
  costs     measure the driver: plan, parts, queue, Ray; extrapolate to --entities
  simulate  play runs with 10, 100 and 1,000 workers, with measured costs and measured shard times

Options
  --turns=3                  speedup: how often each is run
  --rows=20000,60000,200000  costs: sizes of the plans
  --memory-rows=200000,1000000  costs: sizes of the plans whose memory is measured, at least two
  --memory-users=100000,400000  costs: users of 20 ratings whose raw data is read, at least two
  --entities=100000000       costs, simulate: the full size
  --run=DIR                  simulate: a run whose parts tell the shard times (data/<dataset>/runs/<run_id>)
  --faster=1,10,100          simulate: workers so many times as fast as the measured ones"""
EXAMPLES = ["speedup limit=20", "costs", "simulate --run=data/movielens/runs/NAME"]
OPTIONS = {
    "turns": "3",
    "rows": "20000,60000,200000",
    "memory-rows": "200000,1000000",
    "memory-users": "100000,400000",
    "entities": "100000000",
    "run": "",
    "faster": "1,10,100",
}
SHARD_SIZE = 512  # rows, as configs/plan gives for GPUs
NUM_WORKERS = (10, 100, 1000)
QUESTIONS_PER_SEC = 200  # as in pipeline.generate.worker_pool, which loads Ray
CALM = Machines(num_workers=1)
TROUBLED = Machines(num_workers=1, slow_fraction=0.05, losses_per_hour=1 / 24)  # a loss a day for each worker
TROUBLES = {"calm": CALM, "5 % slow, a loss a day": TROUBLED}
Options = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb, options, others = _parsed(words)

    @entry_point("scale", SUMMARY, examples=EXAMPLES)
    def job(settings: RunSettings) -> None:
        if verb not in VERBS:
            raise ConfigError(f"{verb}: no such verb; one of {', '.join(VERBS)}")
        VERBS[verb](options, settings, [word for word in others if not word.startswith("-")])

    return job(others if verb else ["--help"])


def _parsed(words: list[str]) -> tuple[str, Options, list[str]]:
    options, others, verb = dict(OPTIONS), [], ""
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in OPTIONS:
            options[name] = value
        elif not verb and not word.startswith("-"):
            verb = word
        else:
            others.append(word)
    return verb, options, others


def _speedup(options: Options, settings: RunSettings, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="speedup-") as folder:
        speedup = measure_speedup(
            overrides, Path(folder), settings.dataset.name, _numbers(options, "turns")[0]
        )
    write_json(asdict(speedup), _bench(settings) / "speedup.json")
    spread = f"{min(speedup.ratios):.3f} to {max(speedup.ratios):.3f}"
    print(speedup_table(speedup))
    print(f"two workers take {speedup.ratio:.3f} of the time of one (median; {spread})")


def _costs(options: Options, settings: RunSettings, overrides: list[str]) -> None:
    from pipeline.scale.prompt_costs import measure_pools, measure_prompts
    from pipeline.scale.ray_costs import measure_ray

    sizes, entities = _numbers(options, "rows"), _numbers(options, "entities")[0]
    if settings.dataset.reader != "movielens":
        raise ConfigError(f"dataset={settings.dataset.name}: the ratings made up are MovieLens'")
    row_sizes, user_sizes = _two_sizes(options, "memory-rows"), _two_sizes(options, "memory-users")
    with tempfile.TemporaryDirectory(prefix="costs-") as folder:
        costs = measure_prompts(settings)
        costs += measure_costs(Path(folder), sizes, SHARD_SIZE)
        costs += measure_pools(Path(folder) / "pools")
        costs += measure_ray(Path(folder) / "ray.log")
        memory = {
            "plan": measure_memory(Path(folder), row_sizes, SHARD_SIZE),
            "raw data": measure_raw_memory(Path(folder), user_sizes, settings),
        }
    save_costs(costs, _bench(settings) / "costs.json")
    write_json({name: asdict(found) for name, found in memory.items()}, _bench(settings) / "memory.json")
    print(costs_table(costs, entities, -(-entities // SHARD_SIZE), max(NUM_WORKERS)))
    print(memory_line("driver's memory for the plan", memory["plan"], entities, "row"))
    print(memory_line("for the raw data", memory["raw data"], entities, "user"))


def _simulate(options: Options, settings: RunSettings, overrides: list[str]) -> None:
    if not options["run"]:
        raise ConfigError("--run: missing; a run whose parts tell the shard times")
    rates, num_shards = _numbers(options, "faster"), -(-_numbers(options, "entities")[0] // SHARD_SIZE)
    costs = load_costs(_bench(settings) / "costs.json")
    spans, num_rows = shard_spans(RunLayout(Path(options["run"])))
    times = tuple(end - start for start, end in spans)
    row_sec = sum(times) / num_rows / SHARDS_PER_WORKER
    print(f"{len(times)} shards measured: {row_sec:.4f} s of a worker for each row\n")
    played = []
    for faster in rates:
        work = Workload(num_shards, row_sec / faster * SHARD_SIZE * SHARDS_PER_WORKER, times)
        played += _played(f"{faster}x as fast", work, costs)
    print(played_table(played))


def _played(name: str, work: Workload, costs: dict[str, Cost]) -> list[tuple[str, Machines, Played]]:
    played = []
    for trouble, kind in TROUBLES.items():
        for num_workers in NUM_WORKERS:
            machines = replace(kind, num_workers=num_workers)
            run = simulate(work, machines, driver_costs(costs, num_workers))
            played.append((f"{name}, {trouble}", machines, run))
    return played


def driver_costs(costs: dict[str, Cost], num_workers: int) -> DriverCosts:
    """A round waits over all calls twice and sums up; a shard is one call; questions come on top."""
    call = costs["a call and its answer"].per_unit_sec
    waits = 2 * costs["a wait over three calls each"].per_unit_sec
    books = costs["sum of the workers' progress"].per_unit_sec
    questions = call * min(num_workers, QUESTIONS_PER_SEC)
    return DriverCosts(waits + books, call + costs["queue"].per_unit_sec, questions)


def _numbers(options: Options, name: str) -> list[int]:
    try:
        numbers = [int(word) for word in options[name].split(",")]
    except ValueError as error:
        raise ConfigError(f"--{name}={options[name]}: must be positive integers, with commas") from error
    if min(numbers) < 1:
        raise ConfigError(f"--{name}={options[name]}: must be positive integers, with commas")
    return numbers


def _two_sizes(options: Options, name: str) -> list[int]:
    numbers = _numbers(options, name)
    if len(set(numbers)) < 2:
        raise ConfigError(f"--{name}={options[name]}: needs two sizes")
    return numbers


def _bench(settings: RunSettings) -> Path:
    return Path(settings.paths.data) / "bench"


VERBS: dict[str, Callable[[Options, RunSettings, list[str]], None]] = {
    "speedup": _speedup,
    "costs": _costs,
    "simulate": _simulate,
}


if __name__ == "__main__":
    sys.exit(main())
