"""`python -m jobs.texts`: what the texts of a run say of their entities; for comparing prompts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.cli import entry_point
from jobs.report import chosen_run

if TYPE_CHECKING:
    from pipeline.quality.texts import TextMeasures
    from pipeline.settings import RunSettings


@entry_point(
    "texts",
    "Measure what the texts of a run (default: the latest) say of their users and items.",
    examples=["dataset=movielens", "dataset=movielens run_id=NAME"],
)
def main(settings: RunSettings) -> None:
    """Print the measures of each kind, and keep them as `texts.json` beside the run."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from rich import box
        from rich.console import Console
        from rich.table import Table

        from pipeline.encode import load_encoder
        from pipeline.quality.texts import measure_texts
        from pipeline.storage.files import write_json
        from pipeline.storage.layout import DatasetLayout

    dataset = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    run = chosen_run(settings, dataset)
    with stage("comparing texts with their prompts"):
        measures = measure_texts(run, dataset, load_encoder(settings.encoder).encode)
    write_json({kind: asdict(found) for kind, found in measures.items()}, run.root / "texts.json")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(run.root.name)
    for kind in measures:
        table.add_column(kind, justify="right")
    rows = [_shown(found) for found in measures.values()]
    for name in rows[0] if rows else ():
        table.add_row(name, *(row[name] for row in rows))
    Console().print(table)


def _shown(found: TextMeasures) -> dict[str, str]:
    about = found.aboutness
    right, named = found.num_polarity_right, found.num_polarity
    return {
        "texts": str(about.num_texts),
        "name their item or history": f"{about.named:.1%}",
        "name another's": f"{about.named_other:.1%}",
        "share their first five words": f"{about.shared_openings:.1%}",
        "begin with the same five words": f"{about.same_opening:.1%}",
        "distinct": f"{about.distinct:.1%}",
        "mean rank of the own prompt": f"{found.mean_rank:.3f}",
        "own prompt is the nearest": f"{found.first_share:.1%}",
        "liked or disliked as rated": f"{right} of {named} ({right / named:.0%})" if named else "-",
        "looping 8-grams": f"{found.looping_share:.1%}",
        "cut by length": f"{found.cut_share:.1%}",
        "tokens": f"{found.mean_tokens:.0f}",
        "tokens per step": f"{found.tokens_per_step:.2f}",
    }


if __name__ == "__main__":
    sys.exit(main())
