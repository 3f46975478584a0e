"""The shell around every job: arguments in, exit code out, one line for whatever goes wrong.

    @entry_point("generate", "Generate knowledge texts.", examples=["dataset=movielens limit=20"])
    def main(settings: RunSettings) -> None: ...

    if __name__ == "__main__":
        sys.exit(main())

Exit codes: 0 done; 2 a wrong configuration, bad data or model (`PipelineError.exit_code`); 1 incomplete,
stopped by the machine, the cluster or the disk, or unexpected; 130 interrupted; 143 ended by SIGTERM.

`--help` needs the standard library only, so that it works before anything is installed: here and in the
modules of the jobs, libraries are imported where they are used.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.environment import CONFIG_DIR_VARIABLE, silence_telemetry
from pipeline.errors import FULL, ConfigError, PipelineError, Terminated
from pipeline.printable import printable

if TYPE_CHECKING:
    from pipeline.settings import RunSettings

    Job = Callable[[RunSettings], None]

INTERRUPTED = 130
HAVE_DRY_RUN = ("generate", "nightly", "cluster")  # cluster hands it on to the job that it starts

KEYS = """\
Most important keys (configs/ holds all of them; --print-config shows their values)
  dataset=NAME                a file of configs/dataset/
  dataset.raw=/path           raw files of your own instead of the embedded sample
  limit=N|all                 n users and n items
  dry_run=true                show what would be done; generate and write nothing
  run_id=NAME                 names the run; the same name resumes it
  retry_failed=true           of a run that is done: generate the failed rows again
  history_cutoff=1998-03-01   ratings from this day (UTC) on are not shown; also today, yesterday
  model=NAME                  a file of configs/model/
  model.path=/dir|org/name    any model directory or hub id
  engine.max_num_seqs=N       sequences that are decoded together
  drafter=laser|none|ngram|suffix
  acceptance=relaxed|strict   acceptance.top_k=N acceptance.min_prob=P
  cluster.address=HOST:6379   a running Ray cluster, on whose nodes this runs; cluster.num_workers=N
  paths.data=/path            where results go (default: data); all workers must see it"""


class Main(Protocol):
    """What an entry point is called with: the command line, by default that of the process."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the job and return the exit code."""


@dataclass
class Arguments:
    """The command line: Hydra overrides, and the few options that are not."""

    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None
    wants_help: bool = False
    wants_config: bool = False


def entry_point(
    name: str, summary: str, *, config_name: str = "generate", examples: Sequence[str] = ()
) -> Callable[[Job], Main]:
    """Turn a function of the settings into a `main(argv=None)` that returns the exit code."""

    def decorate(job: Job) -> Main:
        def main(argv: Sequence[str] | None = None) -> int:
            silence_telemetry()
            return _run(job, name, _usage(name, summary, examples), config_name, argv)

        return main

    return decorate


def _run(job: Job, name: str, usage: str, config_name: str, argv: Sequence[str] | None) -> int:
    settings = None
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if arguments.wants_help:
            _show(usage + "\n")
            return 0
        from pipeline.stages import messages, stage, stages_shown

        _show_messages()
        with stages_shown(messages()):
            with stage("loading libraries", is_short=True):
                settings = _settings(name, config_name, arguments)
            if arguments.wants_config:
                _show(_as_yaml(settings))
                return 0
            _run_job(job, settings)
    except PipelineError as error:
        return _fail(str(error), error.exit_code)
    except Terminated as error:
        return _fail(f"{error}; what is finished is kept, and the same command resumes", error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what is finished is kept, and the same command resumes", INTERRUPTED)
    except Exception as error:  # noqa: BLE001  the edge: the traceback goes to a file
        if isinstance(error, OSError) and error.errno in FULL:
            return _fail(f"{error.filename or 'a file'}: {error.strerror}; what is finished is kept", 1)
        log = _write_traceback(name, settings)
        return _fail(f"unexpected {type(error).__name__}: {error}; the traceback is in {log}", 1)
    return 0


def _settings(name: str, config_name: str, arguments: Arguments) -> RunSettings:
    from jobs.config import load_settings

    settings = load_settings(config_name, arguments.overrides, arguments.config_dir)
    if settings.dry_run and name not in HAVE_DRY_RUN:
        raise ConfigError(f"dry_run=true: {name} has no dry run; generate and nightly have one")
    return settings


def _run_job(job: Job, settings: RunSettings) -> None:
    from pipeline.storage.unreachable import naming_unreachable_store
    from pipeline.termination import terminated_in_order

    with terminated_in_order(), naming_unreachable_store(settings.paths.data):
        job(settings)


def _as_yaml(settings: RunSettings) -> str:
    from jobs.config import as_yaml

    return as_yaml(settings)


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Tell options from overrides; `ConfigError` for an option that is unknown or lacks its value."""
    arguments = Arguments()
    words = iter(argv)
    for word in words:
        option, has_value, value = word.partition("=")
        if word in ("-h", "--help"):
            arguments.wants_help = True
        elif word == "--print-config":
            arguments.wants_config = True
        elif option == "--config-dir":
            arguments.config_dir = value if has_value else next(words, "")
            if not arguments.config_dir:
                raise ConfigError("--config-dir: needs a folder")
        elif word.startswith("-"):
            raise ConfigError(f"{option}: unknown option; --help lists the options")
        else:
            arguments.overrides.append(word)
    return arguments


def _usage(name: str, summary: str, examples: Sequence[str]) -> str:
    command = f"python -m jobs.{name}"
    lines = [
        f"usage: {command} [option ...] [key=value ...]",
        "",
        summary,
        "",
        "Options",
        "  --help              show this",
        "  --print-config      show the resolved configuration and do nothing",
        f"  --config-dir DIR    offer the files of DIR beside configs/ (also: ${CONFIG_DIR_VARIABLE})",
        "",
        _keys_of(name),
    ]
    if examples:
        lines += ["", "Examples", *(f"  {command} {example}" for example in examples)]
    return "\n".join(lines)


def _keys_of(name: str) -> str:
    lines = KEYS.splitlines()
    return "\n".join(line for line in lines if name in HAVE_DRY_RUN or not line.startswith("  dry_run="))


def _show(text: str) -> None:
    """Print `text`; a reader that has seen enough (`| head`) is no error."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_messages() -> None:
    """Messages of this project, not of the libraries below it, go to stderr."""
    from pipeline.stages import MessageHandler

    handler = MessageHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for room in ("jobs", "pipeline", "drafters"):
        logger = logging.getLogger(room)
        logger.setLevel(logging.INFO)
        if not logger.handlers:
            logger.addHandler(handler)


def _fail(line: str, exit_code: int) -> int:
    print(f"error: {printable(' '.join(line.split()))}", file=sys.stderr)
    return exit_code


def _write_traceback(name: str, settings: RunSettings | None) -> Path:
    """Write the current exception with the configuration to a file; below paths.data if that is writable."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    configuration = _as_yaml(settings) if settings else "(not composed)\n"
    text = f"{traceback.format_exc()}\nCommand: {sys.argv}\n\nConfiguration\n{configuration}"
    try:
        from pipeline.storage.location import data_path, is_remote

        data = data_path(settings.paths.data) if settings else None
        folder = Path(tempfile.gettempdir()) if data is None or is_remote(data) else data / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{name}-{moment}.log"
        log.write_text(text, encoding="utf-8")
    except OSError:
        with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".log", delete=False) as file:
            file.write(text)
        return Path(file.name)
    return log
