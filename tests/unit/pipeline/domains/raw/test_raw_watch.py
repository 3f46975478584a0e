import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.domains import read_domain
from pipeline.domains.raw import watch
from pipeline.domains.raw.lines import read_line_blocks
from pipeline.domains.raw.sources import Source
from pipeline.domains.raw.watch import ReadingBar, ReadProgress, is_watched, reading_shown_on, watch_reading
from pipeline.settings import DatasetSettings

LINES = b"".join(b"%d,a line of some length\n" % number for number in range(20_000))


@pytest.mark.parametrize("kind", ["path", "plain", "gz"])
def test_reading_is_reported_up_to_the_end_of_the_file_on_disk(tmp_path, kind):
    path = tmp_path / ("x.csv.gz" if kind == "gz" else "x.csv")
    path.write_bytes(gzip.compress(LINES) if kind == "gz" else LINES)
    file = path if kind == "path" else Source(str(path))
    seen = []
    with watch_reading(seen.append):
        assert is_watched()
        blocks = list(read_line_blocks(file, block_bytes=1 << 16))
    assert sum(len(block.text) for block in blocks) == 20_000
    assert {(state.name, state.size_bytes) for state in seen} == {(path.name, path.stat().st_size)}
    counts = [state.num_bytes for state in seen]
    assert counts == sorted(counts) and counts[0] < counts[-1] == path.stat().st_size
    assert not is_watched()


def test_a_bar_stands_while_a_large_file_is_read(monkeypatch):
    monkeypatch.setattr(ReadingBar, "MIN_BYTES", 100)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bar = ReadingBar(console)
    for name in ("small.csv", "reviews[1].json.gz", "meta.json.gz"):
        for num_bytes in (50, 100, 200) if name != "small.csv" else (50, 99):
            bar(ReadProgress(name, num_bytes, 99 if name == "small.csv" else 200))
    shown = console.file.getvalue()
    assert "reading reviews[1].json.gz" in shown and "reading meta.json.gz" in shown
    assert "small.csv" not in shown
    bar(ReadProgress("of unknown size", 10**9, None))
    assert "unknown" not in console.file.getvalue()
    bar.close()


def test_the_bar_is_gone_after_a_domain_was_read_though_not_every_file_to_its_end(monkeypatch, tmp_path):
    monkeypatch.setattr(ReadingBar, "MIN_BYTES", 1)
    dataset = DatasetSettings.model_validate({
        "name": "shop", "reader": "tabular", "raw": str(tmp_path), "item_word": "thing",
        "tabular": {
            "items": {"files": "items.csv", "id": "item", "title": "title"},
            "interactions": {"files": "events.parquet", "user": "user", "item": "item"},
        },
        "item_groups": {}, "user_groups": {"num_groups": 2, "num_factors": 2},
    })  # fmt: skip
    (tmp_path / "items.csv").write_text("item,title\n1,One\n")
    unread = [str(number) for number in range(50_000)]
    table = pa.table({"user": ["a"] * 50_000, "item": ["1"] * 50_000, "more": unread})
    pq.write_table(table, tmp_path / "events.parquet")
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = []
    monkeypatch.setattr(watch, "ReadingBar", lambda console: bars.append(ReadingBar(console)) or bars[0])
    with reading_shown_on(console):
        assert read_domain(dataset).interactions.num_rows == 50_000
        assert bars[0]._progress is None, "the next display would stand beside this one"
    assert "reading events.parquet" in console.file.getvalue()


def test_without_a_terminal_nobody_watches():
    with reading_shown_on(Console(file=io.StringIO())):
        assert not is_watched()
    with pytest.raises(KeyError), reading_shown_on(Console(file=io.StringIO(), force_terminal=True)):
        assert is_watched()
        raise KeyError
    assert not is_watched()
