"""`python -m jobs.quality run_id=NAME`: the quality gate of a run; a night does it by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs.cli import entry_point
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pipeline.settings import RunSettings


@entry_point(
    "quality",
    "Decode a sample of a run's relaxed texts strictly as well; exit 1 if they are too far apart.",
    config_name="nightly",
    examples=["run_id=2026-11-22", "run_id=2026-11-22 quality.num_entities=100 quality.max_drift=0.2"],
)
def main(settings: RunSettings) -> None:
    """Check the run, and show what was measured."""
    from pipeline.stages import messages, stage

    with stage("loading libraries", is_short=True):
        from pipeline.encode import load_encoder
        from pipeline.generate.progress import progress_view
        from pipeline.models import resolve_model
        from pipeline.quality import check_quality
        from pipeline.storage.layout import DatasetLayout, models_folder

    if settings.run_id is None:
        raise ConfigError("run_id: missing; name the run to check")
    run = DatasetLayout.of(settings.paths.data, settings.dataset.name).run(settings.run_id)
    if not run.plan.exists():
        raise DataError(f"run_id={settings.run_id}: there is no such run in {run.root.parent}")
    source = resolve_model(settings.model, models_folder(settings.paths.data))
    report = check_quality(
        settings,
        run,
        source,
        lambda texts: load_encoder(settings.encoder).encode(texts),
        lambda: progress_view(messages(), settings.model.name),
    )
    for metric in report.metrics:
        budget = "" if metric.budget is None else f"   at most {metric.budget:g}"
        print(f"{metric.name:<18} {metric.value:8.4f}{budget}")
    print(f"{report.sample} texts; {run.quality}")


if __name__ == "__main__":
    sys.exit(main())
