import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jobs.cli import entry_point
from pipeline.errors import DataError, GenerationError

CHECKOUT = Path(__file__).resolve().parents[3]


def main_of(job):
    return entry_point("demo", "Show how a job runs.", examples=["dataset=movielens limit=20"])(job)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def main(ran):
    return main_of(ran.append)


@pytest.fixture
def data(tmp_path) -> str:
    return f"paths.data={tmp_path / 'data'}"


def test_a_job_gets_its_settings(main, ran, capsys):
    assert main(["limit=3", "model=smollm2-135m"]) == 0
    assert ran[0].limit == 3
    assert capsys.readouterr().err == ""


def test_help_shows_keys_options_and_examples(main, ran, capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "python -m jobs.demo",
        "acceptance=relaxed|strict",
        "--config-dir",
        "dataset=movielens limit=20",
    ):
        assert expected in shown
    assert not ran


def test_print_config_shows_the_resolved_yaml(main, ran, capsys):
    assert main(["--print-config", "limit=3"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["limit"] == 3
    assert not ran


def test_a_job_without_a_dry_run_refuses_one(main, ran, capsys):
    assert main(["dry_run=true"]) == 2
    line = "error: dry_run=true: demo has no dry run; generate and nightly have one\n"
    assert capsys.readouterr().err == line
    assert not ran


@pytest.mark.parametrize("job", ["encode", "export", "evaluate", "quality", "report", "publish", "benchmark"])
def test_only_jobs_with_a_dry_run_offer_it(job, capsys):
    main = importlib.import_module(f"jobs.{job}").main
    assert main(["--help"]) == 0 and "dry_run" not in capsys.readouterr().out
    assert main(["dry_run=true"]) == 2
    assert f"dry_run=true: {job} has no dry run" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["generate", "nightly", "cluster.__main__"])
def test_jobs_with_a_dry_run_offer_it(job, capsys):
    assert importlib.import_module(f"jobs.{job}").main(["--help"]) == 0
    assert "dry_run=true" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_config_dir_adds_a_folder(main, ran, tmp_path, arguments):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "tiny.yaml").write_text("shard_size: 2\n")
    assert main([argument.format(tmp_path) for argument in arguments] + ["plan=tiny"]) == 0
    assert ran[0].plan.shard_size == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["acceptance.top_k=0"], "error: acceptance.top_k=0: must be greater than or equal to 1\n"),
        (["--verbose"], "error: --verbose: unknown option; --help lists the options\n"),
        (["--config-dir"], "error: --config-dir: needs a folder\n"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(main, ran, capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", line)
    assert not ran


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (DataError("u.item: no such file"), 2, "error: u.item: no such file"),
        (DataError("u.item: '\x1b[31m\x07'"), 2, "error: u.item: '\\x1b[31m\\x07'"),
        (GenerationError("2 shards\nare missing"), 1, "error: 2 shards are missing"),
        (
            KeyboardInterrupt(),
            130,
            "error: interrupted; what is finished is kept, and the same command resumes",
        ),
    ],
)
def test_errors_become_one_line_and_an_exit_code(capsys, error, exit_code, line):
    def job(settings):
        raise error

    assert main_of(job)([]) == exit_code
    assert capsys.readouterr().err == line + "\n"


def test_the_unexpected_leaves_its_traceback_in_a_file(capsys, data):
    def job(settings):
        raise ZeroDivisionError("really\nunexpected")

    assert main_of(job)([data]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: unexpected ZeroDivisionError: really unexpected; the traceback is in ")
    assert line.count("\n") == 1
    log = Path(line.rsplit(" ", 1)[1].strip())
    assert log.parent == Path(data.removeprefix("paths.data=")) / "logs"
    assert "Traceback" in log.read_text()
    assert "shard_size" in log.read_text()


def test_an_unwritable_data_folder_does_not_hide_the_error(capsys, tmp_path):
    def job(settings):
        raise ZeroDivisionError

    (tmp_path / "file").write_text("")
    assert main_of(job)([f"paths.data={tmp_path / 'file'}"]) == 1
    log = Path(capsys.readouterr().err.rsplit(" ", 1)[1].strip())
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_telemetry_is_off_before_a_job_imports_anything():
    code = "import jobs, os, sys; print(os.environ['RAY_USAGE_STATS_ENABLED'], 'ray' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["0", "False"]


def test_a_reader_that_stops_reading_is_no_error():
    code = (
        "from jobs.cli import entry_point; raise SystemExit(entry_point('d', 's')(print)(['--print-config']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as nobody:  # noqa: PTH123  a descriptor, not a path
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=CHECKOUT, stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert (finished.returncode, finished.stderr) == (0, b"")


def test_an_interrupt_during_imports_leaves_no_traceback():
    finished = subprocess.run(
        [sys.executable, "-c", "import jobs; raise KeyboardInterrupt"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (-signal.SIGINT, "error: interrupted\n")


def test_sigterm_ends_a_job_in_order():
    """Also after a library has set a handler of its own, as `ray.init` does."""
    code = """
import signal, sys, time
from jobs.cli import entry_point
from pipeline.termination import sigterm_handler_kept

def job(settings):
    with sigterm_handler_kept():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
    try:
        print("running", flush=True)
        time.sleep(120)
    finally:
        time.sleep(0.5)
        print("closed", flush=True)

raise SystemExit(entry_point("d", "s")(job)([]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # as an impatient queue does
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (143, "closed\n")
    line = "error: ended by SIGTERM; what is finished is kept, and the same command resumes"
    assert err.splitlines()[-1] == line
