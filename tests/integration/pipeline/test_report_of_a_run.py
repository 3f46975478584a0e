"""The report of a generation on real Ray: two sessions, one shard done again."""

import socket

from pipeline.generate.dispatch import generate_shards
from pipeline.report import write_report
from pipeline.storage.files import write_json, write_parquet
from pipeline.storage.layout import DatasetLayout
from tests.generation import ToyWorker, make_plan, make_spec


def test_a_resumed_run_reports_both_sessions_and_the_machine(tmp_path):
    dataset = DatasetLayout.of(tmp_path, "toy")
    run = dataset.run("run")
    plan = make_plan(num_shards=4, rows_per_shard=4)
    write_parquet(plan, run.plan)
    generate_shards(plan, make_spec(run, num_workers=1), run, ToyWorker)
    run.part_manifest("item-00002").write_text("{")
    generate_shards(plan, make_spec(run, num_workers=1), run, ToyWorker)
    write_json({"num_planned": 16, "summary": {}}, run.manifest)
    figures = write_report(run, dataset).figures
    assert figures.verdict.headline.startswith("The run went well: all 16 texts were written")
    assert figures.speed.num_sessions == 2
    assert figures.speed.sources["pool"].num_draft_tokens == 6 * (16 + 4)
    assert (figures.shards.num_planned, figures.shards.num_finished) == (4, 4)
    assert {shard.node for shard in figures.shards.slowest} == {socket.gethostname()}
    assert all(shard.seconds is not None and shard.seconds > 0 for shard in figures.shards.slowest)
    assert run.report("html").exists() and run.metrics.exists()
