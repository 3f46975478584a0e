from pipeline.generate import row_by_row
from pipeline.generate.row_by_row import row_under_way
from pipeline.storage.layout import RunLayout


class OutOfReach:
    """A marker in a store that does not answer; its client's errors are no `OSError`."""

    def read_text(self):
        raise RuntimeError("Could not connect to the endpoint URL")


def test_the_row_that_ran_is_told_once(tmp_path):
    layout = RunLayout(tmp_path)
    layout.parts.mkdir()
    row_by_row._marker(layout, "item-1").write_text("2")
    assert row_under_way(layout, "item-1") == 2
    assert row_under_way(layout, "item-1") is None


def test_a_store_that_does_not_answer_knows_no_row_and_ends_no_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(row_by_row, "_marker", lambda *_: OutOfReach())
    assert row_under_way(RunLayout(tmp_path), "item-1") is None
    assert "so the row is not known: Could not connect" in caplog.text
