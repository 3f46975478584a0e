import os
import signal
import time

import pytest
import yaml

from jobs.cluster import ray_jobs
from jobs.cluster.__main__ import main, parse
from pipeline.errors import ConfigError

NOBODY = "cluster=ray", "cluster.ray_jobs.dashboard=http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rendr"], "rendr: no such verb; one of render, schedule, submit"),
        (["render", "--job=nope"], "--job=nope: must be one of nightly, generate"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(ConfigError, match=message):
        parse(words)


def test_what_is_not_an_option_of_ours_goes_on():
    request = parse(["logs", "raysubmit_1", "cluster=ray", "--no-follow", "--config-dir=/x"])
    assert (request.submission_id, request.is_waiting) == ("raysubmit_1", False)
    assert request.overrides == ["cluster=ray", "--config-dir=/x"]


@pytest.mark.parametrize("verb", ["status", "logs", "stop"])
def test_the_folder_of_an_option_is_no_submission_id(verb):
    request = parse([verb, "raysubmit_1", "--config-dir", "/x", "cluster=ray"])
    assert (request.submission_id, request.overrides) == ("raysubmit_1", ["--config-dir=/x", "cluster=ray"])


@pytest.mark.parametrize("form", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_the_rendered_command_has_the_folder_of_configurations_and_only_overrides_beside_it(
    form, tmp_path, capsys
):
    option = [word.format(tmp_path) for word in form]
    words = [
        "render",
        "cluster=crontab",
        "--job=generate",
        *option,
        "dataset=movielens",
        f"paths.data={tmp_path}",
    ]
    assert main(words) == 0
    assert (
        f" -m jobs.generate --config-dir={tmp_path} dataset=movielens paths.data=" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["render"], 2, "choose cluster=kuberay|slurm|crontab|airflow"),
        (["schedule", "cluster=slurm"], 2, "let cron call sbatch"),
        (["submit"], 2, "choose cluster=ray"),
        (["status", *NOBODY], 1, "no Ray dashboard answers"),
        (["render", "cluster=crontab", "--config-dir"], 2, "--config-dir: needs a folder"),
        (["render", "cluster=kuberay", "--job=generate"], 2, "cluster.kuberay.image: missing"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_code_2_and_a_cluster_that_is_away_1(words, code, message, capsys):
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and message in captured.err
    assert captured.err.count("\n") == 1


def test_help_names_the_verbs(capsys):
    assert main([]) == 0
    assert "schedule" in capsys.readouterr().out


def test_the_manifest_has_the_defaults_of_the_nodes_and_not_of_this_machine(capsys, monkeypatch):
    monkeypatch.setenv("LASER_BACKEND", "cpu")
    assert main(["render", "cluster=kuberay", "cluster.kuberay.image=x", "--job=generate"]) == 0
    manifest = yaml.safe_load(capsys.readouterr().out)
    assert manifest["spec"]["entrypoint"].startswith("python -m jobs.generate paths.data=/data ")


@pytest.mark.parametrize(
    ("sent", "code", "stopped", "message"),
    [
        (signal.SIGTERM, 143, ["night"], "error: night: stopped, because this process was"),
        (signal.SIGINT, 130, [], "night goes on; `python -m jobs.cluster stop night` ends it"),
    ],
)
def test_a_scheduler_that_ends_the_client_stops_the_job_and_ctrl_c_leaves_it(
    capsys, monkeypatch, sent, code, stopped, message
):
    seen, before = [], signal.getsignal(signal.SIGTERM)
    # What Python sets at its start, unless the tests run in the background of a shell, which ignores Ctrl-C.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)

    def follow(*_):
        os.kill(os.getpid(), sent)
        time.sleep(10)

    monkeypatch.setattr(ray_jobs, "connect", lambda _: None)
    monkeypatch.setattr(ray_jobs, "submit", lambda *_: "night")
    monkeypatch.setattr(ray_jobs, "follow", follow)
    monkeypatch.setattr(ray_jobs, "stop", lambda _, name: seen.append(name))
    try:
        assert main(["submit", "cluster=ray"]) == code
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert message in capsys.readouterr().err
    assert seen == stopped and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "words",
    [
        ["render", "cluster=crontab"],
        ["schedule", "cluster=crontab"],
        ["render", "cluster=airflow", "cluster.ray_jobs.dashboard=http://head:8265"],
        ["schedule", "cluster=kuberay", "cluster.kuberay.image=i:1"],
    ],
)
def test_what_runs_each_night_takes_no_fixed_cutoff(words, capsys):
    assert main([*words, "history_cutoff=2026-11-22"]) == 2
    assert "history_cutoff=2026-11-22T00:00Z: would be the same each night" in capsys.readouterr().err
    assert main([*words, "history_cutoff=today"]) == 0
    assert "history_cutoff=today" in capsys.readouterr().out


def test_a_batch_script_with_a_fixed_cutoff_is_rendered_with_a_warning(capsys):
    assert main(["render", "cluster=slurm", "history_cutoff=2026-11-22"]) == 0
    captured = capsys.readouterr()
    assert "history_cutoff=2026-11-22" in captured.out and "write history_cutoff=today" in captured.err
