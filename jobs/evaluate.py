"""`python -m jobs.evaluate`: what knowledge is worth to CTR models; also `make evaluate`."""

import sys

from rich.console import Console

from jobs.cli import entry_point
from pipeline.settings import RunSettings


@entry_point(
    "evaluate",
    "Compare CTR models without knowledge, and with greedy, strict, relaxed and shuffled knowledge.",
    config_name="evaluate",
    examples=["limit=100 evaluation.num_seeds=10", "limit=all history_cutoff=1998-03-01"],
)
def main(settings: RunSettings) -> None:
    """Evaluate, then write data/<dataset>/evaluation/<version>.json, a table and a plot."""
    from pipeline.encode import load_encoder
    from pipeline.evaluate.present import markdown, plot
    from pipeline.evaluate.run import evaluate, evaluation_folder
    from pipeline.generate.progress import progress_view
    from pipeline.storage.files import write_json, write_text

    messages = Console(stderr=True)
    found = evaluate(
        settings,
        lambda texts: load_encoder(settings.encoder).encode(texts),
        lambda: progress_view(messages, settings.model.name),
    )
    folder = evaluation_folder(settings)
    text = markdown(found)
    write_json(found.as_dict(), folder / f"{found.version}.json")
    write_text(text + "\n", folder / f"{found.version}.md")
    plot(found, folder / f"{found.version}.png")
    print(f"\n{text}\n\n{folder / found.version}.json, .md, .png")


if __name__ == "__main__":
    sys.exit(main())
