"""`python -m jobs.evaluate`: what knowledge is worth to CTR models; also `make evaluate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from pipeline.settings import RunSettings


@entry_point(
    "evaluate",
    "Compare CTR models without knowledge, and with greedy, strict, relaxed and shuffled knowledge.",
    config_name="evaluate",
    examples=["limit=100 evaluation.num_seeds=10", "limit=all history_cutoff=1998-03-01"],
)
def main(settings: RunSettings) -> None:
    """Evaluate, then write data/<dataset>/evaluation/<version>[-<digest>].json, tables and a plot."""
    from pipeline.stages import messages, stage

    with stage("loading libraries", is_short=True):
        from pipeline.encode import load_encoder
        from pipeline.evaluate.present import markdown, plot
        from pipeline.evaluate.run import evaluate, evaluation_folder
        from pipeline.generate.progress import progress_view
        from pipeline.storage.files import write_json, write_text

    found = evaluate(
        settings,
        lambda texts: load_encoder(settings.encoder).encode(texts),
        lambda: progress_view(messages(), settings.model.name),
    )
    folder = evaluation_folder(settings)
    text = markdown(found)
    for path in found.paths(folder, "json"):
        write_json(found.as_dict(), path)
    for path in found.paths(folder, "md"):
        write_text(text + "\n", path)
    for path in found.paths(folder, "png"):
        plot(found, path)
    own, latest = found.names
    print(f"\n{text}\n\n{folder / own}.json, .md, .png; the same as {latest}.*")


if __name__ == "__main__":
    sys.exit(main())
