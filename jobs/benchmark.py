"""`python -m jobs.benchmark`: decoding methods side by side; also `make bench`."""

import sys
from pathlib import Path

from jobs.cli import entry_point
from pipeline.settings import RunSettings


@entry_point(
    "benchmark",
    "Compare decoding without drafts, vLLM's ngram and suffix drafts, and LASER, in one run.",
    config_name="benchmark",
    examples=["model.path=/my/model", "bench.concurrencies=[1,16] bench.num_repeats=2"],
)
def main(settings: RunSettings) -> None:
    """Measure, then write data/bench/generation.json, a table and a plot."""
    from pipeline.benchmark.present import bound_table, plot, speed_table, verdicts
    from pipeline.benchmark.run import as_dicts, machine_description, run_benchmark
    from pipeline.storage.files import write_json, write_text

    folder = Path(settings.paths.data) / "bench"
    rows = run_benchmark(settings, folder)
    write_json(as_dicts(rows), folder / "generation.json")
    machine = machine_description()
    note = f"{settings.model.name}, {machine}; pools of {settings.bench.num_pool} other entities of each kind"
    bounds = "Tokens per step / cost of a step (tokens per step of texts that do not loop; looping share)"
    text = "\n\n".join([note, speed_table(rows), *verdicts(rows), bounds, bound_table(rows)])
    write_text(text + "\n", folder / "generation.md")
    plot(rows, folder / "generation.png", note)
    print(f"\n{text}\n\n{folder / 'generation.json'}, {folder / 'generation.png'}")


if __name__ == "__main__":
    sys.exit(main())
