"""`python -m jobs.benchmark`: decoding methods side by side; also `make bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from pipeline.settings import RunSettings


@entry_point(
    "benchmark",
    "Compare decoding without drafts, vLLM's ngram and suffix drafts, and LASER, in one run.",
    config_name="benchmark",
    examples=["model.path=/my/model", "bench.concurrencies=[1,16] bench.num_repeats=2"],
)
def main(settings: RunSettings) -> None:
    """Measure, then write data/bench/generation.json, a table and a plot."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from pipeline.benchmark.present import bound_table, plain_table, plot, prefill_table, speed_table
        from pipeline.benchmark.run import machine_description, run_benchmark
        from pipeline.benchmark.verdicts import verdicts
        from pipeline.storage.files import write_text

    folder = Path(settings.paths.data) / "bench"
    rows = run_benchmark(settings, folder)
    machine = machine_description()
    bench = settings.bench
    pool = "published texts" if bench.use_published else f"{bench.num_pool} texts of each kind"
    note = f"{settings.model.name}, {machine}; pools: {pool}, of other entities"
    parts = [
        note,
        "Decoding alone, prompts in the prefix cache: ratio to none, median (lowest-highest of the rounds)",
        speed_table(rows),
        "\n".join(f"- {line}" for line in verdicts(rows)),
        "The time of reading each prompt included",
        prefill_table(rows),
        "Tokens per step / cost of a step in steps of none (looping share)",
        bound_table(rows),
        "Texts that loop neither by none nor by the method: tokens per step, ratio to none as estimated from "
        "it (how many texts)",
        plain_table(rows),
    ]
    text = "\n\n".join(parts)
    write_text(text + "\n", folder / "generation.md")
    plot(rows, folder / "generation.png", note)
    print(f"\n{text}\n\n{folder / 'generation.json'}, {folder / 'generation.png'}")


if __name__ == "__main__":
    sys.exit(main())
