"""`python -m jobs.export`: vectors to the files of CTR libraries; also `make export`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.export.coverage import Coverage
    from pipeline.settings import RunSettings


logger = logging.getLogger(__name__)


@entry_point(
    "export",
    "Write the vectors in force for FuxiCTR, RecBole, KAR and torch, and say what they cover.",
    config_name="encode",
    examples=["dataset=movielens", "export.formats=[torch]", "export.version=NAME", "export.user_field=uid"],
)
def main(settings: RunSettings) -> None:
    """Export, then say what is covered and where the files are."""
    from pipeline.stages import stage

    with stage("loading libraries", is_short=True):
        from rich.console import Console

        from pipeline.encode.versions import encoded_other_texts
        from pipeline.export.run import export_embeddings
        from pipeline.storage.layout import DatasetLayout

    report = export_embeddings(settings)
    out = Console()
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    if settings.export.version is None and (note := encoded_other_texts(layout)):
        logger.warning("%s", note)
    out.print(f"\n{'embeddings':<12} {report.embeddings.version}, {report.embeddings.dim} dimensions")
    _print_coverage(report.coverage, out)
    for name, files in report.files.items():
        out.print(f"{name:<12} {report.folder / name}: {', '.join(files)}", highlight=False, soft_wrap=True)


def _print_coverage(coverage: Coverage, out: Console) -> None:
    for kind, counts in coverage.kinds.items():
        out.print(
            f"{kind + 's':<12} {counts.num_ids_covered:,} of {counts.num_ids:,} ids of the interactions have "
            f"a vector; {_percent(counts.num_interactions_covered, coverage.num_interactions)} of "
            f"{coverage.num_interactions:,} interactions",
            highlight=False,
            soft_wrap=True,
        )
    share = _percent(coverage.num_both_covered, coverage.num_interactions)
    out.print(f"{'both':<12} {share} of the interactions have both vectors", highlight=False)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


if __name__ == "__main__":
    sys.exit(main())
