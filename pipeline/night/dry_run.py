"""What a night would do: which entities it would write, which it would carry over, which would leave.

Nothing is generated, no version is named, and nothing below `paths.data` is written.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from pipeline.dry_run import render_apart, understand
from pipeline.night.changes import counts_by_kind, is_planned, is_unchanged
from pipeline.night.cutoff import with_cutoff_of_the_night
from pipeline.night.planning import NightPlan, Prepared, check_unprompted, plan_night
from pipeline.publish.release import check_gone
from pipeline.settings import KINDS, Kind, RunSettings
from pipeline.sharing import origins, scope_of
from pipeline.stages import stage
from pipeline.storage.layout import DatasetLayout


@dataclass(frozen=True)
class NightDryRun:
    """What would become of the entities, and how much the model would have to read for it."""

    base_version: str | None  # in force now
    counts: dict[Kind, dict[str, int]]  # as in `night.json`
    num_texts: dict[Kind, int]  # to generate: planned entities with equal prompts may share one
    num_prompt_tokens: dict[Kind, int]  # of these texts
    is_unchanged: bool  # the version in force would be confirmed


def dry_run_night(settings: RunSettings) -> NightDryRun:
    """Read, group, render and plan as a night would. Raises `PipelineError` as a night would.

    The dataset's lock is not taken: a night that is running is not disturbed, and may change what is said.
    """
    layout = DatasetLayout.of(settings.paths.data, settings.dataset.name)
    settings = with_cutoff_of_the_night(settings, layout)
    understood = understand(settings)
    rendered, source = render_apart(settings, understood.tables, understood.chosen)
    prepared = Prepared(understood.tables, understood.groups, understood.chosen, rendered, source)
    with stage("comparing with what is published"):
        night = plan_night(settings, layout, prepared)
    check_gone(night.base, night.changes, settings.publish.max_gone_fraction)
    check_unprompted(settings, night)
    num_texts, num_prompt_tokens = _to_generate(night, settings)
    return NightDryRun(
        base_version=night.base.version if night.base else None,
        counts=counts_by_kind(night.changes),
        num_texts=num_texts,
        num_prompt_tokens=num_prompt_tokens,
        is_unchanged=night.base is not None and is_unchanged(night.changes),
    )


def _to_generate(night: NightPlan, settings: RunSettings) -> tuple[dict[Kind, int], dict[Kind, int]]:
    """(texts, tokens of their prompts) by kind."""
    plan = night.run.plan
    is_new = is_planned(plan, night.changes.filter(pc.equal(night.changes["change"], "new")))
    is_written = origins(plan, scope_of(settings), is_new) == np.arange(plan.num_rows)
    lengths = pc.list_value_length(night.run.prompts["prompt_token_ids"]).take(plan["row"]).to_numpy()
    masks = {kind: is_written & pc.equal(plan["kind"], kind).to_numpy() for kind in KINDS}
    return (
        {kind: int(mask.sum()) for kind, mask in masks.items()},
        {kind: int(lengths[mask].sum()) for kind, mask in masks.items()},
    )
