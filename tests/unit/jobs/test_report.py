import pytest

from jobs import generate
from jobs.report import main
from pipeline.storage.layout import DatasetLayout
from tests.unit.pipeline.report.conftest import RunBuilder


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    return ["dataset=movielens", f"paths.data={tmp_path}"]


@pytest.fixture
def builder(tmp_path) -> RunBuilder:
    return RunBuilder(DatasetLayout.of(tmp_path, "movielens"))


def test_the_latest_run_is_reported(arguments, builder, capsys):
    layout = builder.build()
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "night-1: The run went well: all 12 texts were written" in shown
    assert str(layout.report("html")) in shown
    assert layout.report("md").exists() and layout.metrics.exists()


def test_a_failed_run_is_reported_with_exit_code_0(arguments, builder, capsys):
    builder.finished = 2
    builder.build(has_summary=False)
    assert main([*arguments, "run_id=night-1"]) == 0
    shown = capsys.readouterr().out
    assert "stopped before its end" in shown
    assert "what to do: Run the same command again" in shown


def test_no_run_and_an_unknown_run_are_told_in_one_line(arguments, builder, capsys):
    assert main(arguments) == 2
    assert "no run yet" in capsys.readouterr().err
    assert main([*arguments, "run_id=absent"]) == 2
    assert "absent: no such run" in capsys.readouterr().err


def test_a_gateway_that_does_not_answer_costs_the_exit_code_but_no_report(arguments, builder, capsys):
    layout = builder.build()
    assert main([*arguments, "report.pushgateway=127.0.0.1:9"]) == 1
    assert "report.pushgateway=127.0.0.1:9" in capsys.readouterr().err
    assert layout.report("html").exists()


def test_a_run_whose_items_get_no_prompt_is_refused_and_reported_red(tmp_path, smollm2, capsys):
    """Eight items whose titles leave no room for an answer; the dry run refuses what the run refuses."""
    raw = tmp_path / "raw"
    raw.mkdir()
    titles = [f"{n},Zq{n} {'xkcd qwrtz ' * 18}(1999),Drama" for n in range(1, 9)]
    (raw / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles, "9,Moth (2001),War"]) + "\n")
    ratings = [f"{n},9,5,{n}" for n in range(1, 9)]
    (raw / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")
    data = tmp_path / "data"
    words = [f"dataset.raw={raw}", f"paths.data={data}", f"model.path={smollm2}", "model=smollm2-135m"]
    words += ["limit=all", "model.max_model_len=256", "knowledge.user.max_tokens=64"]
    words += ["knowledge.item.max_tokens=140", "run_id=mine"]
    refusal = (
        "error: 8 of 9 items have no new text (8 got no prompt), more than max_failed_fraction=0.01 allows"
    )
    assert generate.main([*words, "dry_run=true"]) == 2
    assert refusal in capsys.readouterr().err and not data.exists()
    assert generate.main(words) == 2
    assert refusal in capsys.readouterr().err
    assert main([f"paths.data={data}", "dataset=movielens", "run_id=mine"]) == 0
    shown = capsys.readouterr().out
    assert "mine: The run failed: 0 of 9 texts were written" in shown
    assert "why: 8 of 9 items have no new text" in shown
    assert 'success{dataset="movielens"} 0.0' in (data / "movielens/runs/mine/metrics.prom").read_text()
