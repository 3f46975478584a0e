from drafters.replay.traces import read_trace
from jobs.record import write_recordings
from pipeline.storage.layout import DatasetLayout
from tests.publishing import entities, finished_run


def test_recordings_are_what_the_replay_reads(tmp_path):
    layout = DatasetLayout.of(tmp_path, "toy")
    rows = [*entities("user", *map(str, range(9)), group="g1"), *entities("item", "i1", "i2", group="drama")]
    run = finished_run(layout, "one", rows, failing=("i2",))
    items, users = write_recordings(run, tmp_path / "recordings")
    assert (items.name, users.name) == ("items.parquet", "users.parquet")
    [item] = read_trace(items)
    assert (item.entity_id, item.group) == ("i1", "drama")
    assert (item.prompt.tolist(), item.output.tolist()) == ([1, 2], [3, 5, 6, 7, 3])
    assert sorted(recording.entity_id for recording in read_trace(users)) == list("012345678")


def test_a_text_that_rows_share_is_recorded_once(tmp_path):
    layout = DatasetLayout.of(tmp_path, "toy")
    run = finished_run(layout, "one", entities("item", "i1", "i2"), shared_from="i0")
    [items] = write_recordings(run, tmp_path)
    assert read_trace(items) == []
