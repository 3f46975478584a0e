"""What a night that fails, or loses its lock, leaves behind and tells."""

import errno
import json
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from pipeline.errors import BusyError, ConfigError, DataError, PublishError, StorageError, Terminated
from pipeline.night import night as night_module
from pipeline.publish.snapshot import snapshot_in_force
from pipeline.publish.versions import rollback
from pipeline.publish_settings import PublishSettings
from pipeline.settings import ReportSettings
from pipeline.storage import files
from pipeline.storage.layout import DatasetLayout
from tests.publishing import entities, settings_of
from tests.unit.pipeline.night.conftest import World

GATEWAY = ReportSettings(pushgateway="gateway:9091")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("u.data: no such file"), "u.data: no such file"),
        (ZeroDivisionError("unexpected"), "unexpected"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Terminated(), "ended by SIGTERM"),
    ],
)
def test_a_night_that_fails_before_its_plan_is_recorded_and_reported(reporting, pushed, error, reason):
    reporting.broken = error
    with pytest.raises(type(error)):
        reporting.night(report=GATEWAY, run_id="mine")
    record, run = reporting.record("mine"), reporting.layout.run("mine")
    assert (record["status"], record["error"]) == ("failed", f"tables: {reason}")
    assert "The night failed at step tables" in run.report("md").read_text()
    assert reason in run.report("md").read_text()
    assert 'knowledge_run_success{dataset="toy"} 0.0' in run.metrics.read_text()
    assert pushed == ["gateway:9091"]

    reporting.broken = None
    done = reporting.night(run_id="mine")
    assert (done["status"], done["run_id"]) == ("done", "mine")


@pytest.mark.parametrize(
    ("num_unprompted", "error"),
    [
        (8, "none of 8 items has a text: 8 got no prompt; for example item 'x0': too long; nothing was"),
        (
            2,
            "2 of 4 items have no new text (2 got no prompt), more than max_failed_fraction=0.01 allows",
        ),
    ],
)
def test_a_night_whose_items_get_no_prompt_is_red_before_anything_is_generated(
    reporting, num_unprompted, error
):
    users = entities("user", "u1", "u2")
    reporting.unprompted = entities("item", *(f"x{number}" for number in range(num_unprompted)))
    reporting.rows = users + (entities("item", "i1", "i2") if num_unprompted == 2 else [])
    with pytest.raises(DataError) as raised:
        reporting.night(run_id="mine")
    assert str(raised.value).startswith(error)
    assert reporting.num_generations == 0 and snapshot_in_force(reporting.layout) is None
    assert "The night failed at step plan" in reporting.layout.run("mine").report("md").read_text()

    # Not of the few that a later night plans: one of 31 is within the bound, also if it is the only new one.
    reporting.rows = users + entities("item", *(f"i{number}" for number in range(30)))
    reporting.unprompted = entities("item", "x0")
    assert reporting.night(run_id="better")["status"] == "done"
    reporting.rows = reporting.rows + entities("item", "i30")
    assert reporting.night(run_id="next")["status"] == "done"


def test_what_is_unexpected_in_a_later_step_is_reported_too(reporting, monkeypatch):
    monkeypatch.setattr(night_module, "content_of_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reporting.night(run_id="mine")
    assert reporting.record("mine")["status"] == "failed"
    assert "division by zero" in reporting.layout.run("mine").report("md").read_text()


def test_a_failing_report_does_not_hide_why_the_night_failed(world, monkeypatch):
    monkeypatch.setattr(night_module, "_write_report", lambda *_: {}["key"])
    world.broken = DataError("u.data: no such file")
    with pytest.raises(DataError, match=r"u\.data"):
        world.night()


def test_a_night_without_changes_is_pushed_too(reporting, pushed):
    reporting.night(run_id="one", report=GATEWAY)
    reporting.night(run_id="two", report=GATEWAY)
    assert reporting.num_generations == 1 and not reporting.layout.run("two").manifest.exists()
    assert pushed == ["gateway:9091"] * 2


def taken_over(world: World) -> dict[str, str]:
    """Another machine's night takes the lock, and what every file of the runs holds then."""
    record = world.layout.lock.with_name("night.lock.owner")
    owner = json.loads(record.read_text())
    record.write_text(json.dumps(owner | {"host": "elsewhere", "started_at": 1.0}))
    return files_of_runs(world)


def files_of_runs(world: World) -> dict[str, str]:
    return {
        str(path): path.read_text() for path in world.layout.runs.glob("*/*.*") if "parquet" not in str(path)
    }


@pytest.mark.parametrize("failing", ["content_of_run", "publish_run"])
def test_a_night_that_lost_its_lock_leaves_record_and_report_to_the_new_owner(
    reporting, monkeypatch, failing
):
    before: dict[str, str] = {}
    real = getattr(night_module, failing)

    def stalls(*arguments):
        before.update(taken_over(reporting))
        return real(*arguments)

    monkeypatch.setattr(night_module, failing, stalls)
    with pytest.raises(BusyError, match="this process lost the lock; it belongs to mine on elsewhere"):
        reporting.night(run_id="mine")
    assert files_of_runs(reporting) == before and not reporting.layout.run("mine").report("md").exists()
    assert json.loads(before[str(reporting.layout.run("mine").night)])["status"] == "running"
    assert snapshot_in_force(reporting.layout) is None


@pytest.mark.parametrize("is_rolled_back", [True, False])
def test_after_a_failed_report_nights_go_on_also_after_a_rollback(world, monkeypatch, is_rolled_back):
    world.night(run_id="one")
    world.rows = world.rows + entities("user", "u3")
    with monkeypatch.context() as patched:
        patched.setattr(night_module, "_write_report", lambda *_: {}["key"])
        with pytest.raises(KeyError):
            world.night()
    failed = snapshot_in_force(world.layout).version
    assert failed != "one" and world.record(failed)["status"] == "failed"
    if not is_rolled_back:
        assert world.night()["run_id"] == failed
        return
    rollback(world.layout, None)
    with pytest.raises(ConfigError, match=f"run_id={failed}: a rollback left that night's version"):
        world.night(run_id=failed)
    again = world.night()
    assert again["run_id"] == snapshot_in_force(world.layout).version == f"{failed}-2"
    assert (again["status"], again["previous_version"]) == ("done", "one")
    assert world.record(failed)["status"] == "failed", "it is left as it was"


def test_the_next_night_does_not_take_the_cutoff_of_one_that_was_rolled_back(world, monkeypatch):
    word = {"cutoff_word": "today"}
    world.night(run_id="one")
    world.rows = world.rows + entities("user", "u3")
    with monkeypatch.context() as patched:
        patched.setattr(night_module, "_write_report", lambda *_: {}["key"])
        with pytest.raises(KeyError):
            world.night(history_cutoff=datetime(2026, 11, 22, tzinfo=UTC), **word)
    rollback(world.layout, None)
    again = world.night(history_cutoff=datetime(2026, 11, 23, tzinfo=UTC), **word)
    assert again["run_id"] == "2026-11-23"


def test_sessions_that_were_killed_count_in_seconds_and_rate(world):
    world.killed = Terminated()
    with pytest.raises(Terminated):
        world.night(run_id="one")
    assert world.record("one")["decode_sec"] == 2.0
    world.decode("one")  # as a session that SIGKILL ended leaves it

    world.killed = None
    world.summary = {
        "tokens_per_sec": None,
        "decode_sec": 0.0,
    }  # killed between the last shard and its summary
    one = world.night(run_id="one")
    assert one["decode_sec"] == 6.0
    assert snapshot_in_force(world.layout).sec_per_token == pytest.approx(2.0 / 100)


class FullDisk:
    """A disk that takes no file once it is full; small ones when the reserve is given up."""

    def __init__(self, layout: DatasetLayout) -> None:
        self.layout = layout
        self.is_full = False
        self.write = files._renamed

    @contextmanager
    def renamed(self, path):
        is_large = path == self.layout.reserve or path.suffix == ".parquet"
        if self.is_full and (self.layout.reserve.exists() or is_large):
            raise OSError(errno.ENOSPC, "No space left on device")
        with self.write(path) as temporary:
            yield temporary


@pytest.fixture
def disk(reporting, monkeypatch) -> FullDisk:
    disk = FullDisk(reporting.layout)
    monkeypatch.setattr(files, "_renamed", disk.renamed)
    return disk


@pytest.mark.parametrize("is_full_at", ["owned", "read_tables", "content_of_run", "_write_report"])
def test_a_night_on_a_full_disk_is_told_by_record_metrics_report_and_gateway(
    reporting, disk, pushed, monkeypatch, is_full_at
):
    reporting.night(run_id="one")
    assert 'knowledge_run_success{dataset="toy"} 1.0' in reporting.layout.metrics.read_text()
    real = getattr(night_module, is_full_at)

    def fills(*arguments):
        disk.is_full = True
        return real(*arguments)

    monkeypatch.setattr(night_module, is_full_at, fills)
    reporting.rows = reporting.rows + entities("user", "u3")
    with pytest.raises(StorageError, match="no space left on device"):
        reporting.night(run_id="two", report=GATEWAY)
    record, run = reporting.record("two"), reporting.layout.run("two")
    assert record["status"] == "failed" and "no space left on device" in record["error"]
    assert 'knowledge_run_success{dataset="toy"} 0.0' in reporting.layout.metrics.read_text()
    assert "**FAILED: The night failed" in run.report("md").read_text()
    assert set(pushed) == {"gateway:9091"}

    disk.is_full = False
    monkeypatch.setattr(night_module, is_full_at, real)
    assert reporting.night()["status"] == "done" and reporting.layout.reserve.exists()


def test_a_night_of_essays_that_fit_anybody_is_red(reporting):
    essay = {"text": "When analyzing a user's preferences, consider genre, direction, and plot."}
    reporting.rows = [row | {"titles": [f"of {row['entity_id']}"]} for row in reporting.rows]
    knowledge = settings_of().knowledge
    bounded = knowledge.user.model_copy(update={"min_named_fraction": 0.5})
    bounds = {
        "knowledge": knowledge.model_copy(update={"user": bounded}),
        "publish": PublishSettings(min_judged_rows=2),
    }
    reporting.changes = essay
    reason = (
        "0% of the texts of users name an item of their history, and 0% name another's: a difference below "
        "knowledge.user.min_named_fraction=0.5"
    )
    with pytest.raises(PublishError, match=reason):
        reporting.night(run_id="essays", **bounds)
    assert snapshot_in_force(reporting.layout) is None
    assert reason in reporting.layout.run("essays").report("md").read_text()
    assert reason in json.loads(reporting.layout.run("essays").validation.read_text())["reason"]

    reporting.changes = {}  # texts "text 3 of u1"
    assert reporting.night(run_id="told", **bounds)["status"] == "done"


def test_a_few_new_texts_are_not_judged_by_what_they_name(world):
    world.rows = [row | {"titles": ["Alien"]} for row in world.rows]
    knowledge = settings_of().knowledge
    bounded = knowledge.user.model_copy(update={"min_named_fraction": 1.0})
    done = world.night(knowledge=knowledge.model_copy(update={"user": bounded}))
    assert done["status"] == "done"
