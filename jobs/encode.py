"""`python -m jobs.encode`: published knowledge to dense vectors; also `make encode`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.encode.run import EncodeReport
    from pipeline.settings import RunSettings


@entry_point(
    "encode",
    "Turn the published texts (or those of run_id=...) into vectors; unchanged texts keep theirs.",
    config_name="encode",
    examples=["dataset=movielens", "encoder=bge-base-en-v1.5", "encoder.reduced_dim=64", "run_id=my-run"],
)
def main(settings: RunSettings) -> None:
    """Encode, then say what came out and where it is."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from rich.console import Console

        from pipeline.encode.run import encode_knowledge
        from pipeline.encode.versions import version_folder
        from pipeline.storage.layout import DatasetLayout

    report = encode_knowledge(settings)
    out = Console()
    _print_counts(report, out)
    folder = version_folder(
        DatasetLayout.of(settings.paths.data, settings.dataset.name), report.embeddings.version
    )
    out.print(f"{'embeddings':<12} {folder}", highlight=False, soft_wrap=True)


def _print_counts(report: EncodeReport, out: Console) -> None:
    from pipeline.settings import KINDS

    embeddings = report.embeddings
    encoder = embeddings.encoder
    out.print(
        f"\n{'encoder':<12} {encoder['name']} ({encoder['revision']}), {embeddings.dim} dimensions",
        highlight=False,
        soft_wrap=True,
    )
    for kind in KINDS:
        counts = embeddings.counts[kind]
        done = f"encoded {counts['encoded']:,}, kept {counts['kept']:,}"
        note = ", all there already" if report.was_complete else ""
        out.print(f"{kind + 's':<12} {done}{note}", highlight=False)
    if report.num_resumed:
        out.print(f"{'resumed':<12} {report.num_resumed:,} were there already", highlight=False)
    out.print(f"{'time':<12} {report.elapsed_sec:.1f} s", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
