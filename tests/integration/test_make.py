"""The Makefile and the installer, as far as they can be tried without installing anything."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TARGETS = ["help", "setup", "generate", "test", "lint", "format", "lock", "clean"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what setting up reads, without .venv."""
    copy = tmp_path / "checkout"
    shutil.copytree(CHECKOUT / "requirements", copy / "requirements")
    shutil.copy(CHECKOUT / "Makefile", copy / "Makefile")
    return copy


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for name in ("BACKEND", "PYTHON", "DATASET", "LIMIT", "ARGS"):
        inherited.pop(name, None)
    return subprocess.run(
        command,
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_help_is_the_default_and_lists_every_target(checkout):
    shown = run(checkout, "make")
    assert shown.returncode == 0
    assert shown.stdout == run(checkout, "make", "help").stdout
    for target in TARGETS:
        assert f"\n  {target} " in shown.stdout
    assert not (checkout / ".venv").exists()


def test_generate_passes_dataset_limit_and_args(checkout):
    command = ("make", "-n", "generate", "DATASET=books", "LIMIT=all", "ARGS=drafter=none acceptance=strict")
    shown = run(checkout, *command).stdout
    assert "-m jobs.generate 'dataset=books' 'limit=all' drafter=none acceptance=strict" in shown
    assert "limit=" not in run(checkout, "make", "-n", "generate").stdout


def test_the_backend_follows_the_gpu_unless_it_is_given(checkout, tmp_path):
    program(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: NVIDIA H200 (UUID: x)'")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    assert "BACKEND='gpu'" in run(checkout, "make", "-n", "setup", PATH=path).stdout
    assert "BACKEND='cpu'" in run(checkout, "make", "-n", "setup", "BACKEND=cpu", PATH=path).stdout
    program(tmp_path / "bin", "nvidia-smi", "echo 'No devices were found'")
    assert "BACKEND='cpu'" in run(checkout, "make", "-n", "setup", PATH=path).stdout


@pytest.mark.parametrize(
    "command",
    [
        *(
            [job, "ARGS=--help"]
            for job in ["generate", "report", "nightly", "publish", "encode", "export", "evaluate"]
        ),
        ["generate", "ARGS=drafter=none -h"],
        ["bench", "BENCH_ARGS=--help"],
        ["bench-datastore", "BENCH_ARGS=--help"],
    ],
    ids=" ".join,
)
def test_help_of_a_job_installs_nothing_and_needs_no_package(checkout, tmp_path, command):
    for package in ("jobs", "pipeline", "drafters"):
        shutil.copytree(CHECKOUT / package, checkout / package)
    program(tmp_path / "bin", "bare-python", f'exec "{sys._base_executable}" -S "$@"')
    shown = run(checkout, "make", *command, f"PYTHON={tmp_path / 'bin' / 'bare-python'}")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("usage: python -m ")
    assert not (checkout / ".venv").exists()


def test_help_without_a_usable_python_is_one_line(checkout):
    shown = run(checkout, "make", "generate", "ARGS=--help", "PYTHON=/no/python")
    assert shown.stderr.splitlines()[0] == "error: PYTHON=/no/python: is not a Python 3.11 or newer"
    assert len(shown.stderr.splitlines()) == 2  # and make's own


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (["BACKEND=tpu"], "error: BACKEND=tpu: must be cpu or gpu"),
        (["BACKEND=cpu", "PYTHON=/no/python"], "error: PYTHON=/no/python: is not a Python 3.11 or newer"),
    ],
)
def test_what_setting_up_lacks_is_one_line(checkout, variables, line):
    finished = run(checkout, "make", "setup", *variables)
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[0] == line
    assert not (checkout / ".venv").exists()


def test_a_missing_venv_module_names_the_package(checkout, tmp_path):
    program(
        tmp_path / "bin",
        "python3",
        'case "$2" in *ensurepip*) exit 1;; *version_info?1?*) echo python3.12-venv;; esac',
    )
    finished = run(checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={tmp_path / 'bin' / 'python3'}")
    assert "apt-get install python3.12-venv" in finished.stderr
    assert finished.returncode == 2


def fake_python(folder: Path, pip: str) -> Path:
    """A python3 whose environments run the shell line `pip` instead of everything they are asked for.

    Each environment that it makes is a line of the file `made` in `folder`.
    """
    program(folder, "pip-and-python", pip)
    make = f'echo "$3" >>{folder}/made; mkdir -p "$3/bin"; cp {folder}/pip-and-python "$3/bin/python"'
    program(folder, "python3", f'case "$2" in venv) {make};; esac')
    return folder / "python3"


def test_a_failed_installation_shows_why_and_is_never_taken_for_done(checkout, tmp_path):
    python = fake_python(tmp_path / "bin", "echo no network; exit 1")
    for _ in range(2):
        finished = run(checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={python}")
        assert finished.returncode == 2
        assert "no network\nerror: setting up failed" in finished.stderr
        assert "torch==" in finished.stdout
    assert sorted(file.name for file in checkout.iterdir()) == [".venv", "Makefile", "requirements"]


def test_torch_is_looked_for_locally_before_the_cpu_index(checkout, tmp_path):
    python = fake_python(tmp_path / "bin", "echo no network; exit 1")
    shown = run(checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={python}").stdout.splitlines()
    assert [line.split("] ")[1] for line in shown[1:]] == [
        "torch==2.13.0+cpu",
        "torch==2.13.0+cpu from https://download.pytorch.org/whl/cpu",
    ]


def test_an_installation_happens_once(checkout, tmp_path):
    python = fake_python(tmp_path / "bin", "sleep 0.1")
    command = ["make", "setup", "BACKEND=cpu", f"PYTHON={python}"]
    with ThreadPoolExecutor() as pool:
        finished = list(pool.map(lambda _: run(checkout, *command), range(3)))
    assert [process.returncode for process in finished] == [0, 0, 0]
    assert run(checkout, *command).stdout == ""
    assert (tmp_path / "bin" / "made").read_text() == ".venv\n"


def test_packages_are_compiled_and_one_that_does_not_compile_is_no_failure(checkout, tmp_path):
    asked = tmp_path / "asked"
    python = fake_python(tmp_path / "bin", f'echo "$2" >>{asked}; case "$2" in compileall) exit 1;; esac')
    finished = run(checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={python}")
    assert finished.returncode == 0
    assert asked.read_text().split().count("compileall") == 1


def test_other_lists_or_another_folder_make_the_environment_anew(checkout, tmp_path):
    python = fake_python(tmp_path / "bin", "true")
    command = ["make", "setup", "BACKEND=cpu", f"PYTHON={python}"]
    run(checkout, *command)
    (checkout / ".venv" / "stale").write_text("")
    with (checkout / "requirements" / "cpu.txt").open("a") as list_of_packages:
        list_of_packages.write("another==1.0\n")
    assert "ready" in run(checkout, *command).stdout
    assert not (checkout / ".venv" / "stale").exists()
    checkout.rename(tmp_path / "moved")
    assert "ready" in run(tmp_path / "moved", *command).stdout


def test_an_environment_that_is_a_link_to_another_is_refused_and_left_alone(checkout, tmp_path):
    other = tmp_path / "other" / ".venv"
    other.mkdir(parents=True)
    (other / "installed").write_text("the stamp of another checkout\n")
    (checkout / ".venv").symlink_to(other)
    finished = run(
        checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={fake_python(tmp_path / 'bin', 'true')}"
    )
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[0] == (
        f"error: .venv is a link to {other}, which this checkout did not set up; "
        "rm .venv, and make sets up its own"
    )
    assert (other / "installed").read_text() == "the stamp of another checkout\n"
    assert (checkout / ".venv").is_symlink()


def test_an_environment_that_make_did_not_make_is_refused_and_left_alone(checkout, tmp_path):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    finished = run(
        checkout, "make", "setup", "BACKEND=cpu", f"PYTHON={fake_python(tmp_path / 'bin', 'true')}"
    )
    assert finished.returncode == 2
    line = "error: .venv was not made by make; move or remove it, and make sets up its own"
    assert finished.stderr.splitlines()[0] == line
    assert (checkout / ".venv" / "bin").is_dir()


def test_an_installation_that_was_killed_is_begun_anew(checkout, tmp_path):
    python = fake_python(tmp_path / "bin", "kill -9 $PPID")
    command = ["make", "setup", "BACKEND=cpu", f"PYTHON={python}"]
    assert run(checkout, *command).returncode == 2
    assert (checkout / ".venv").exists()
    fake_python(tmp_path / "bin", "true")
    assert "ready" in run(checkout, *command).stdout
    assert sorted(file.name for file in checkout.iterdir()) == [".venv", "Makefile", "requirements"]
