import json
from datetime import timedelta

import pyarrow as pa
import pytest

from pipeline.errors import CorruptPartError, DataError
from pipeline.report.document import build_document
from pipeline.report.gather import gather
from pipeline.report.markdown import to_markdown
from pipeline.schemas import FAILED, ITEMS
from pipeline.storage.files import write_json, write_parquet
from tests.unit.pipeline.report.conftest import BEGIN, RunBuilder


def test_rows_tokens_and_groups_are_those_of_the_parts(builder, dataset):
    figures = gather(builder.build(), dataset)
    total = figures.rows.of_kind()
    assert (total.num_rows, total.num_output_tokens, total.num_decode_steps) == (12, 96, 48)
    assert (total.tokens_per_step, total.acceptance, total.relaxed_share) == (2.0, 4 / 6, 0.25)
    assert figures.rows.groups == {("item", "drama"): total}
    assert figures.rows.finish_reasons == {"item": {"stop": 12}}
    assert figures.rows.lengths["item"].tolist() == [0] * 8 + [12]
    assert figures.num_failed == {} and figures.failures == []
    assert figures.facts.acceptance == "relaxed(k=2,p=0.1)"
    assert figures.verdict.headline.startswith("The run went well: all 12 texts were written")


def test_texts_that_rows_share_are_measured_once_and_counted(dataset):
    """Each shard holds one text that three more rows share: tokens and lengths are those of three texts."""
    shared = {str(number): str(number - number % 4) for number in range(12) if number % 4}
    figures = gather(RunBuilder(dataset, shared=shared).build(), dataset)
    total = figures.rows.of_kind()
    assert (total.num_rows, total.num_output_tokens, total.tokens_per_step) == (12, 24, 2.0)
    assert figures.rows.lengths["item"].tolist() == [0] * 8 + [3]
    assert (figures.rows.num_shared, figures.rows.num_measured) == ({"item": 9}, {"item": 3})
    assert all(sample.num_output_tokens == 8 for sample in figures.rows.samples)
    page = to_markdown(build_document(figures))
    assert "8 a text" in page and "generated for another entity with the same prompt" in page


def test_slow_shards_are_named_with_their_machine(builder, dataset):
    shards = gather(builder.build(), dataset).shards
    slowest = shards.slowest[0]
    assert (slowest.shard, slowest.node, slowest.seconds) == ("item-00001", "node-1", 30.0)
    assert (slowest.num_rows, slowest.num_output_tokens) == (4, 32)
    assert (shards.num_planned, shards.num_finished, shards.median_sec) == (3, 3, 20.0)
    assert [(node.node, node.num_shards) for node in shards.nodes] == [("node-1", 1), ("node-0", 2)]


def test_curves_and_speed_span_all_sessions(builder, dataset):
    layout = builder.build()
    for number in range(4):
        builder.line(number)
    for number in range(3):
        builder.line(number, "b", price=0.75)
    speed = gather(layout, dataset).speed
    assert (speed.num_sessions, speed.decode_sec, speed.num_decoded_tokens) == (2, 50.0, 5000)
    assert (speed.tokens_per_sec, speed.drafter_ms) == (100.0, 5.0)
    assert speed.sources["pool"].num_draft_tokens == 40 * 5
    assert [moment.session for moment in speed.moments] == ["a", "a", "a", "b", "b"]
    assert (speed.price, speed.num_running) == (pytest.approx(0.45), 4.0)


def test_a_long_series_is_thinned_but_its_totals_are_not(builder, dataset):
    layout = builder.build()
    for number in range(1000):
        builder.line(number)
    speed = gather(layout, dataset).speed
    assert speed.decode_sec == 9990.0
    assert 150 < len(speed.moments) <= 240
    assert {round(moment.tokens_per_sec) for moment in speed.moments} == {100}


def test_a_run_without_a_series_knows_its_last_session(builder, dataset):
    layout = builder.build()
    content = json.loads(layout.manifest.read_text())
    content["summary"] |= {
        "decode_sec": 20.0,
        "tokens_per_sec": 4.0,
        "sources": {"own": {"num_draft_tokens": 3, "num_accepted_tokens": 1}},
    }
    write_json(content, layout.manifest)
    figures = gather(layout, dataset)
    assert (figures.speed.tokens_per_sec, figures.speed.moments) == (4.0, [])
    assert figures.speed.sources["own"].num_accepted_tokens == 1
    assert figures.started_at == BEGIN


@pytest.mark.parametrize("drafted_from", [None, "v0"])
def test_the_pools_are_those_that_were_drafted_from_not_those_that_the_night_built(
    builder, dataset, drafted_from
):
    layout = builder.build()
    manifest = json.loads(layout.manifest.read_text())
    write_json(manifest | {"datastore_version": drafted_from}, layout.manifest)
    builder.night(datastore_version="v1")
    assert gather(layout, dataset).facts.datastore_version == drafted_from
    layout.manifest.unlink()
    assert gather(layout, dataset).facts.datastore_version == "v1"


def test_a_killed_run_is_told_as_stopped_and_one_that_moves_as_running(dataset):
    builder = RunBuilder(dataset, finished=2)
    layout = builder.build(has_summary=False)
    builder.line(0)
    builder.line(1)
    stopped = gather(layout, dataset, BEGIN + timedelta(hours=1)).verdict
    assert stopped.state == "stopped"
    assert "8 of 12 texts were written, 2 of 3 shards are finished" in stopped.headline
    assert "Run the same command again" in stopped.advice
    running = gather(layout, dataset, BEGIN + timedelta(seconds=30)).verdict
    assert running.state == "running"


def test_a_run_with_given_up_shards_names_the_reason(dataset):
    layout = RunBuilder(dataset, finished=2).build()
    content = json.loads(layout.manifest.read_text())
    write_json(content | {"summary": {"unfinished": {"the worker process died": 1}}}, layout.manifest)
    verdict = gather(layout, dataset).verdict
    assert (verdict.state, verdict.reason) == ("failed", "the worker process died (1 shard)")


def test_too_many_failed_rows_fail_the_run_and_are_shown_by_reason(dataset):
    figures = gather(RunBuilder(dataset, failing=frozenset({"3", "5", "11"})).build(), dataset)
    assert figures.num_failed == {"generate": 3}
    (reason,) = figures.failures
    assert (reason.reason, reason.num_rows) == ("KeyError: token #", 3)
    assert reason.example == "item 11: KeyError: token 11"
    assert figures.verdict.state == "failed"
    assert figures.verdict.reason == "3 rows failed, 25.0 %; at most 1.0 % may."


def test_failures_of_a_killed_run_are_those_of_its_finished_shards(dataset):
    layout = RunBuilder(dataset, failing=frozenset({"3"})).build(has_summary=False)
    figures = gather(layout, dataset)
    assert figures.num_failed == {"generate": 1}
    assert figures.failures[0].example == "item 3: planted"


def test_raw_rows_are_named_by_file_and_line(builder, dataset):
    layout = builder.build()
    rows = [{"stage": "read", "file": "u.data", "line": n, "reason": f"line {n}: bad"} for n in (4, 7)]
    write_parquet(pa.Table.from_pylist(rows, schema=FAILED), layout.failed)
    figures = gather(layout, dataset)
    assert figures.failures[0].example == "u.data, line 4: line 4: bad"
    assert figures.verdict.state == "done"  # generation failed on none


def test_broken_parts_are_told_not_raised(builder, dataset):
    layout = builder.build()
    layout.part("item-00001").write_bytes(b"PAR1 rubbish")
    layout.part_manifest("item-00002").write_text("{")
    figures = gather(layout, dataset)
    assert figures.rows.of_kind().num_rows == 4
    assert len(figures.shards.broken) == 2
    assert figures.verdict.state == "failed"
    assert "item-0000" in figures.verdict.reason


def test_what_does_not_exist_or_is_unreadable_is_named(builder, dataset):
    with pytest.raises(DataError, match="night-1: no such run"):
        gather(builder.layout, dataset)
    layout = builder.build()
    builder.night(started_at="yesterday")
    with pytest.raises(CorruptPartError, match=r"night\.json: started_at"):
        gather(layout, dataset)


def test_loops_are_found_and_shown(dataset):
    builder = RunBuilder(dataset, num_tokens=8)
    layout = builder.build()
    figures = gather(layout, dataset)
    assert (figures.rows.num_looping, figures.rows.num_measured) == ({"item": 0}, {"item": 12})
    assert [sample.what for sample in figures.rows.samples] == ["shortest", "median length"]
    builder.written = lambda row: (
        row
        | {
            "token_ids": [1, 2] * 20 if row["entity_id"] == "6" else list(range(40)),
            "num_output_tokens": 40,
            "finish_reason": "repetition" if row["entity_id"] == "2" else "stop",
        }
    )
    rows = gather(builder.build(), dataset).rows
    assert rows.num_looping == {"item": 2}
    assert rows.samples[-1].what == "looping"
    assert rows.samples[-1].entity_id == "6"


def test_texts_to_look_at_differ_and_say_whose_they_are(dataset):
    """All equally long: the shortest is as long as the median, and was shown twice."""
    builder = RunBuilder(dataset, texts={str(entity): f"text {entity // 2}" for entity in range(12)})
    layout = builder.build()
    titles = {"item_id": ["0", "2"], "title": ["Toy Story (1995)", "Get | Shorty"]}
    empty = {"categories": [[], []], "attributes": [[], []]}
    write_parquet(pa.table(titles | empty, schema=ITEMS), dataset.tables / "items.parquet")
    samples = gather(layout, dataset).rows.samples
    assert [(sample.what, sample.text) for sample in samples] == [
        ("shortest", "text 0"),
        ("median length", "text 1"),
    ]
    assert [sample.entity for sample in samples] == ["item 0, Toy Story (1995)", "item 2, Get | Shorty"]


def test_a_text_that_is_shown_for_two_reasons_is_shown_once(dataset):
    builder = RunBuilder(dataset, num_shards=1, finished=1)
    builder.written = lambda row: row | {"text": "again and again", "finish_reason": "repetition"}
    samples = gather(builder.build(), dataset).rows.samples
    assert [sample.what for sample in samples] == ["shortest, looping"]
    (dataset.tables).mkdir(parents=True)
    (dataset.tables / "items.parquet").write_bytes(b"no Parquet")
    assert gather(builder.layout, dataset).rows.samples == samples


def test_repeats_are_measured_on_a_sample_of_a_large_run(builder, dataset, monkeypatch):
    monkeypatch.setattr("pipeline.report.rows.MAX_MEASURED", 6)
    rows = gather(builder.build(), dataset).rows
    assert rows.num_measured == {"item": 6}
    assert rows.of_kind().num_rows == 12
