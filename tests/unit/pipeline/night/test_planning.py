from contextlib import nullcontext
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from pipeline.domains import DomainTables
from pipeline.errors import ConfigError
from pipeline.models import ModelSource
from pipeline.night.changes import counts_by_kind
from pipeline.night.planning import Prepared, plan_night
from pipeline.night.record import LAST_STEP, NightRecord
from pipeline.prompts import RenderedPrompts
from pipeline.publish.content import content_of_run
from pipeline.publish.release import publish_run
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, PROMPTS, USERS
from pipeline.storage.layout import DatasetLayout
from tests.publishing import data_tables, entities, finished_run, settings_of

DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path, monkeypatch) -> DatasetLayout:
    """The fingerprint of the rows is that of the runs made by hand."""
    monkeypatch.setattr("pipeline.night.planning.row_fingerprint", lambda *_: "t" * 16)
    layout = DatasetLayout.of(tmp_path, "toy")
    data_tables(layout, users=("u1", "u2"), items=("i1",))
    return layout


def prepared(rows: list[dict], known: list[dict] | None = None) -> Prepared:
    """Tonight's entities, as the steps before the plan hand them on."""
    prompts = pa.Table.from_pylist(rows, schema=PROMPTS)
    groups = pa.Table.from_pylist(known or rows, schema=PROMPTS).select(GROUPS.names)
    empty = [schema.empty_table() for schema in (USERS, ITEMS, INTERACTIONS, FAILED)]
    source = ModelSource("/models/toy", "1", is_local=True, tokenizer_hash="0" * 64)
    rendered = RenderedPrompts(prompts, FAILED.empty_table())
    return Prepared(DomainTables(*empty), groups, prompts.select(GROUPS.names), rendered, source)


def begin(layout, night) -> NightRecord:
    record = NightRecord("toy")
    record.bind(night.run.layout, night.identity, night.base.version if night.base else None)
    return record


def publish(layout, night, rows) -> None:
    """What the steps from `generate` to `publish` leave behind."""
    run = finished_run(layout, night.run.run_id, rows)
    content = content_of_run(layout, run, night.base)
    publish_run(layout, run, settings_of(), content, lambda name: nullcontext())


def finish(record: NightRecord) -> None:
    record.finish()
    with record.step(LAST_STEP):
        pass


def settings(**changes):
    return settings_of(history_cutoff=DAY, **changes)


def test_nights_follow_each_other_and_one_that_stopped_goes_on(layout):
    first = entities("user", "u1", "u2") + entities("item", "i1")
    night = plan_night(settings(), layout, prepared(first))
    assert night.run.run_id == "2026-11-22" and night.base is None and night.run.plan.num_rows == 3
    record = begin(layout, night)

    # Stopped: the same data goes on, other data or settings make another night.
    assert plan_night(settings(), layout, prepared(first)).run.run_id == "2026-11-22"
    other = prepared(entities("user", "u1", prompt="x"), known=first)
    assert plan_night(settings(), layout, other).run.run_id == "2026-11-22-2"

    # Stopped after `publish`: it still goes on, although its own snapshot is in force now.
    publish(layout, night, first)
    again = plan_night(settings(), layout, prepared(first))
    assert again.run.run_id == "2026-11-22" and again.base is None and again.run.plan.equals(night.run.plan)
    # With other data by then, the next night goes from what is in force.
    assert plan_night(settings(), layout, other).base.version == "2026-11-22"

    finish(record)
    done = plan_night(settings(), layout, prepared(first))
    assert done.run.run_id == "2026-11-22-2" and done.run.plan.num_rows == 0
    assert counts_by_kind(done.changes)["user"]["carried"] == 2


def test_only_new_and_changed_entities_are_planned_in_the_groups_in_force(layout):
    first = entities("user", "u1", "u2", group="cluster-00") + entities("user", "u3", group="cluster-01")
    night = plan_night(settings(), layout, prepared(first))
    publish(layout, night, first)
    finish(begin(layout, night))

    # The clusters were fitted again and come out the other way round.
    second = entities("user", "u2", group="cluster-01") + entities(
        "user", "u1", prompt="x", group="cluster-01"
    )
    second += entities("user", "u3", group="cluster-00") + entities("user", "u4", group="cluster-00")
    plan = plan_night(settings(), layout, prepared(second)).run.plan
    assert dict(zip(plan["entity_id"].to_pylist(), plan["group"].to_pylist(), strict=True)) == {
        "u1": "cluster-00", "u4": "cluster-01",
    }  # fmt: skip


def test_a_run_id_that_was_asked_for_must_be_that_nights(layout):
    rows = entities("user", "u1")
    night = plan_night(settings(run_id="mine"), layout, prepared(rows))
    record = begin(layout, night)
    assert plan_night(settings(run_id="mine"), layout, prepared(rows)).run.run_id == "mine"
    with pytest.raises(ConfigError, match="run_id=mine: that night was about other data or settings"):
        plan_night(settings(run_id="mine"), layout, prepared(entities("user", "u1", prompt="x")))
    publish(layout, night, rows)
    finish(record)
    with pytest.raises(ConfigError, match="run_id=mine: that night is done"):
        plan_night(settings(run_id="mine"), layout, prepared(rows))
    finished_run(layout, "plain", rows)
    with pytest.raises(ConfigError, match="run_id=plain: that is no night"):
        plan_night(settings(run_id="plain"), layout, prepared(rows))


def test_after_a_rollback_the_next_night_goes_from_the_version_in_force(layout):
    rows = entities("user", "u1")
    night = plan_night(settings(), layout, prepared(rows))
    publish(layout, night, rows)
    finish(begin(layout, night))
    assert snapshot_in_force(layout).version == "2026-11-22"
    changed = plan_night(settings(), layout, prepared(entities("user", "u1", prompt="x")))
    assert changed.base.version == "2026-11-22" and changed.run.plan.num_rows == 1
