import pytest

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
