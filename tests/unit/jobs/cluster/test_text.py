import ast
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cluster.text import render_airflow, render_crontab, render_slurm
from pipeline.errors import ConfigError

SLURM = [
    "cluster=slurm",
    "cluster.slurm.num_nodes=4",
    "cluster.slurm.node={cpus: 16, memory_gib: 120, gpus: 8}",
    "cluster.slurm.checkout=/shared/laser",
    "cluster.slurm.partition=gpu",
    "cluster.slurm.account=recsys",
    "cluster.slurm.max_hours=7.5",
    "cluster.slurm.setup=[module load cuda/12.8]",
    "limit=all",
]


def slurm_options(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.partition("=")[::2] for line in lines)


def command_of(script):
    """The line of the script that runs the job."""
    (line,) = [line for line in script.splitlines() if line.startswith("python -m jobs.")]
    return line.replace('"$address"', "10.0.0.1:6379").removesuffix(" &")


def test_slurm_reserves_what_the_settings_say(make_job):
    options = slurm_options(render_slurm(make_job(*SLURM)))
    assert (options["nodes"], options["ntasks-per-node"], options["cpus-per-task"]) == ("4", "1", "16")
    assert (options["mem"], options["gpus-per-node"], options["time"]) == ("120G", "8", "450")
    assert (options["partition"], options["account"]) == ("gpu", "recsys")
    assert {"requeue", "no-kill", "dependency", "signal"} <= set(options)


def test_slurm_without_gpus_asks_for_none(make_job):
    script = render_slurm(make_job("cluster=slurm", "cluster.slurm.node.gpus=0"))
    assert "gpus-per-node" not in slurm_options(script) and "--num-gpus=0" in script
    assert "LASER_BACKEND=cpu" in script
    assert "partition" not in slurm_options(script)


def test_the_job_of_the_script_is_a_command_of_this_project(make_job, parsed_again):
    script = render_slurm(make_job(*SLURM, "dataset.raw=/raw data/it's"))
    module, settings = parsed_again(command_of(script))
    assert module == "jobs.nightly"
    assert (settings.limit, settings.dataset.raw) == ("all", "/raw data/it's")
    assert settings.cluster.address == "10.0.0.1:6379"
    assert "module load cuda/12.8" in script.splitlines()


@pytest.mark.parametrize("num_nodes", [1, 4])
def test_the_script_is_good_shell(make_job, tmp_path, num_nodes):
    script = tmp_path / "night.sbatch"
    script.write_text(render_slurm(make_job(*SLURM, f"cluster.slurm.num_nodes={num_nodes}")))
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def cron(make_job, tmp_path):
    """The command that cron would run, on a checkout whose Python is a script of the test."""

    def make(script: str) -> tuple[str, Path]:
        python = tmp_path / "co" / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/bash\n{script}\n")
        python.chmod(0o755)
        place = [
            "cluster=crontab",
            f"cluster.crontab.checkout={tmp_path}/co",
            "cluster.crontab.mail_to=a@b.c",
        ]
        text = render_crontab(make_job(*place, f"paths.data={tmp_path}/data 100%", "limit=3"))
        assert "MAILTO=a@b.c" in text and "CRON_TZ=UTC" in text
        fields = text.splitlines()[-1].split(" ", 5)
        assert fields[:5] == ["0", "1", "*", "*", "*"]
        assert "%" not in fields[5].replace("\\%", "")  # cron takes a bare % for a line break
        return fields[5].replace("\\%", "%"), tmp_path / "data 100%" / "logs"

    return make


def run_as_cron(line):
    return subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, check=False, env={
        "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
    })  # fmt: skip


def test_a_good_night_sends_no_mail(cron, parsed_again):
    line, logs = cron('printf "%s\\n" "$0 ${*@Q}"')
    done = run_as_cron(line)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (log,) = logs.glob("*.log")
    module, settings = parsed_again(shlex.join(shlex.split(log.read_text())))
    assert (module, settings.limit, settings.cluster.address) == ("jobs.nightly", 3, None)
    assert settings.paths.data.endswith("data 100%")


def test_a_bad_night_mails_its_code_and_the_end_of_its_log(cron):
    line, _ = cron('seq 100; echo "error: planted" >&2; exit 2')
    done = run_as_cron(line)
    assert done.returncode == 2
    assert "laser-nightly-movielens: exit code 2" in done.stdout and "error: planted" in done.stdout
    assert "\n99\n" in done.stdout and "\n5\n" not in done.stdout


def test_one_night_at_a_time(cron):
    line, logs = cron("sleep 5")
    with subprocess.Popen(["/bin/bash", "-c", line], env={"PATH": "/usr/bin:/bin"}) as first:
        while not list(logs.glob("*.lock")):
            pass
        second = run_as_cron(line)
        first.kill()
    assert second.returncode == 75 and "exit code 75" in second.stdout


def test_the_dag_compiles_and_submits_this_job(make_job, tmp_path):
    job = make_job("cluster=airflow", "cluster.ray_jobs.dashboard=http://head:8265", "limit=9")
    tree = ast.parse(render_airflow(job))
    (operator,) = [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "BashOperator"
    ]
    arguments = {word.arg: word.value for word in operator.keywords}
    command = ast.literal_eval(arguments["bash_command"])
    assert not command.endswith(".sh")  # Airflow would look for a template of that name
    words = shlex.split(command)
    from jobs.cluster.__main__ import parse
    from jobs.config import load_settings

    request = parse(words[words.index("jobs.cluster") + 1 :])
    settings = load_settings("generate", request.overrides)
    assert (request.verb, request.job, settings.limit) == ("submit", "nightly", 9)
    assert settings.cluster.ray_jobs.dashboard == "http://head:8265"
    assert settings.cluster.address == "auto"


@pytest.mark.parametrize("render", [render_slurm, render_crontab, render_airflow])
def test_another_place_is_refused(make_job, render):
    with pytest.raises(ConfigError, match="missing; choose cluster="):
        render(make_job())
