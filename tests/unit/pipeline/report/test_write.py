import http.server
import os
import threading
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import DataError, StorageError
from pipeline.report import write_report
from pipeline.report.document import build_document
from pipeline.report.gather import gather
from pipeline.report.plots import DRAWERS, SIZE_INCHES
from pipeline.report.write import latest_run
from pipeline.storage.files import remove_folder
from tests.unit.pipeline.report.conftest import HOSTILE, RunBuilder

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers what a browser would load, run or show."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "defs"):
            self.texts.append(data)


@pytest.fixture
def full(dataset):
    """A night with a series, failures, quality figures and a text that means harm."""
    builder = RunBuilder(dataset, texts=dict.fromkeys(map(str, range(12)), HOSTILE), failing=frozenset({"5"}))
    layout = builder.build()
    for number in range(5):
        builder.line(number)
    builder.night()
    layout.quality.write_text(
        '{"checks": [{"name": "drift", "value": 0.0123456, "budget": 0.02, "ok": true}]}'
    )
    return layout


def samples_of(text):
    return list(text_string_to_metric_families(text))


def test_the_page_is_whole_and_needs_nothing_else(full, dataset):
    written = write_report(full, dataset)
    page = Page(full.report("html").read_text(encoding="utf-8"))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(value.startswith("#") for value in links)
    handlers = [name for name, _ in page.attributes if name.startswith("on")]
    assert handlers == []
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert page.tags.count("svg") == 6
    assert "DejaVu" not in full.report("html").read_text(encoding="utf-8")  # pictures take the page's font
    assert written.html.endswith("runs/night-1/report.html")


def test_what_a_model_wrote_is_shown_as_text(full, dataset):
    write_report(full, dataset)
    page = Page(full.report("html").read_text(encoding="utf-8"))
    shown = "".join(page.texts)
    assert '</pre><script>alert("x")</script> & <img src=x>' in shown
    assert "\x1b" not in shown and "\u202e" not in shown and "\ufffd[31m" in shown
    markdown = full.report("md").read_text(encoding="utf-8")
    assert "````text\n" in markdown  # a longer fence than the text has
    assert "\x1b" not in markdown and "\u202e" not in markdown


def test_both_pages_tell_the_same(full, dataset):
    write_report(full, dataset)
    markdown = full.report("md").read_text(encoding="utf-8")
    page = " ".join("".join(Page(full.report("html").read_text(encoding="utf-8")).texts).split())
    for said in (
        "Night of 22 November 2026",
        "11 of 12 texts were written in 10 min; 1 failed (8.3 %",
        "What changed",
        "Drafting for new and changed entities, beside the others",
        "Carrying texts over saved 15 min of decoding",
        "The slowest of 3 shards",
        "KeyError: token #",
        "Quality gate",
        "0.01235",
    ):
        assert said in markdown, said
        assert said in page, said
    tables = [line for line in markdown.splitlines() if line.startswith("|---")]
    assert len(tables) >= 10


def test_markdown_tables_have_as_many_cells_in_every_row(full, dataset):
    write_report(full, dataset)
    width = 0
    for line in full.report("md").read_text(encoding="utf-8").splitlines():
        cells = line.replace("\\|", "").count("|")
        width = 0 if not line.startswith("|") else width or cells
        assert not line.startswith("|") or cells == width, line


def test_a_run_that_went_well_begins_with_texts_and_one_that_failed_with_its_reasons(dataset):
    def titles(builder):
        return [section.title for section in build_document(gather(builder.layout, dataset)).sections]

    builder = RunBuilder(dataset)
    builder.build()
    builder.night()
    assert titles(builder)[0] == "Texts to look at"
    assert titles(builder).index("Steps") == len(titles(builder)) - 2
    builder.night(status="failed", error="generate: the disk is full")
    assert titles(builder)[0] == "Steps"
    assert titles(builder)[-2] == "Texts to look at"


def test_the_legend_stands_beside_the_bars(full, dataset):
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    DRAWERS["lengths"](axes, gather(full, dataset))
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_metrics_are_valid_prometheus_text(full, dataset):
    write_report(full, dataset)
    text = full.metrics.read_text(encoding="utf-8")
    families = {family.name: family for family in samples_of(text)}
    assert all(family.documentation and family.type == "gauge" for family in families.values())
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    toy = ("dataset", "toy")
    assert values["knowledge_run_success", toy] == 1  # the night says so
    assert values["knowledge_run_tokens_per_second", toy] == 100.0
    assert values["knowledge_run_drafter_seconds_per_step", toy] == 0.005
    assert values["knowledge_run_entities", ("change", "carried"), toy, ("kind", "item")] == 100
    assert values["knowledge_run_output_tokens", toy, ("kind", "item")] == 88
    assert values["knowledge_run_failed_rows", toy, ("stage", "generate")] == 1
    assert values["knowledge_run_quality_success", ("check", "drift"), toy] == 1
    info = next(iter(families["knowledge_run_info"].samples))
    assert (info.labels["run_id"], info.labels["version"], info.value) == ("night-1", "v1", 1)


def test_a_run_that_wrote_nothing_has_a_report(dataset):
    layout = RunBuilder(dataset, finished=0).build(has_summary=False)
    written = write_report(layout, dataset)
    assert written.figures.verdict.state == "stopped"
    Page(layout.report("html").read_text(encoding="utf-8"))
    assert any(family.name == "knowledge_run_success" for family in samples_of(layout.metrics.read_text()))


def test_a_report_is_the_same_when_it_is_written_again(full, dataset):
    write_report(full, dataset)
    before = [full.report(suffix).read_bytes() for suffix in ("md", "html", "json")]
    write_report(full, dataset)
    assert [full.report(suffix).read_bytes() for suffix in ("md", "html", "json")] == before


def test_the_latest_run_is_the_one_begun_last(dataset):
    assert latest_run(dataset) is None
    for run_id in ("b", "a"):
        layout = RunBuilder(dataset, run_id=run_id).build()
    (dataset.runs / "empty").mkdir()
    assert latest_run(dataset) == layout


def test_a_run_that_is_not_there_is_named(dataset):
    with pytest.raises(DataError, match="absent: no such run"):
        write_report(dataset.run("absent"), dataset)


def test_the_report_of_a_run_that_was_pruned_is_kept(full, dataset):
    write_report(full, dataset)
    remove_folder(full.parts)
    full.plan.unlink()
    files = [*(full.report(suffix) for suffix in ("md", "html", "json")), full.metrics, dataset.metrics]
    before = [file.read_bytes() for file in files]
    with pytest.raises(
        DataError, match=r"night-1: plan and parts were removed with .*report\.md tells of them"
    ):
        write_report(full, dataset)
    assert [file.read_bytes() for file in files] == before


@pytest.fixture
def gateway():
    """A pushgateway that notes what it gets."""
    pushed = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            pushed.append((self.path, body.decode()))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", pushed
    server.shutdown()
    server.server_close()


def test_metrics_are_pushed_to_a_gateway(full, dataset, gateway):
    address, pushed = gateway
    assert write_report(full, dataset, address).push_error is None
    ((path, body),) = pushed
    assert path == "/metrics/job/knowledge/dataset/toy"
    assert body == full.metrics.read_text()


def test_a_gateway_that_does_not_answer_is_told_and_costs_no_report(full, dataset):
    written = write_report(full, dataset, "127.0.0.1:9")
    assert written.push_error.startswith("report.pushgateway=127.0.0.1:9: ")
    assert full.report("html").exists()


def test_a_full_disk_keeps_no_metrics_from_the_gateway(full, dataset, gateway, monkeypatch):
    def refuses(text, path):
        raise StorageError(f"{path}: no space left on device")

    address, pushed = gateway
    monkeypatch.setattr("pipeline.report.write.write_text", refuses)
    with pytest.raises(StorageError, match=r"metrics\.prom: no space left"):
        write_report(full, dataset, address)
    assert [path for path, _ in pushed] == ["/metrics/job/knowledge/dataset/toy"]


def test_the_latest_runs_metrics_lie_at_a_fixed_place(dataset):
    old, new = (RunBuilder(dataset, run_id=run_id) for run_id in ("night-1", "night-2"))
    os.utime(old.build().manifest, (1, 1))
    write_report(old.layout, dataset)
    assert 'run_id="night-1"' in dataset.metrics.read_text()
    new.build()
    write_report(new.layout, dataset)
    write_report(old.layout, dataset)  # the report of an earlier run, written again
    assert 'run_id="night-2"' in dataset.metrics.read_text()
    assert dataset.metrics.read_text() == new.layout.metrics.read_text()
