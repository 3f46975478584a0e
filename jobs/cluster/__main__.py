"""`python -m jobs.cluster`: the same job on a cluster, submitted or as a manifest."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.cli import entry_point, parse_arguments
from jobs.cluster import ray_jobs
from jobs.cluster.command import ClusterJob
from jobs.cluster.kuberay import render_cronjob, render_rayjob
from jobs.cluster.text import render_airflow, render_crontab, render_slurm
from jobs.config import CONFIGS, load_settings
from pipeline.environment import BACKEND_VARIABLE
from pipeline.errors import ConfigError, Terminated
from pipeline.settings import RunSettings

JOBS = ("nightly", "generate", "encode", "export", "evaluate", "report")
SUMMARY = """\
Run a job on a cluster.

Verbs
  render    print what runs the job now:      cluster=kuberay (kubectl create -f -), slurm (sbatch)
            or each night:                    cluster=crontab, airflow
  schedule  print what runs it each night:    cluster=kuberay (kubectl apply -f -), crontab, airflow
  submit    start it on a running Ray cluster (cluster=ray), show its log, end with its exit code;
            SIGTERM stops the job, Ctrl-C leaves it running
  status | logs | stop ID                     the same cluster, a job submitted before

Options of render, schedule and submit
  --job=NAME   nightly (default), generate, encode, export, evaluate, report
  --id=NAME    submit: the submission id
  --no-wait    submit: return as soon as it is started
  --no-follow  logs: only what there is"""
EXAMPLES = [
    "submit cluster=ray cluster.ray_jobs.dashboard=http://head:8265 dataset=movielens limit=all",
    "logs raysubmit_abc cluster=ray cluster.ray_jobs.dashboard=http://head:8265",
    "render cluster=slurm cluster.slurm.num_nodes=4 dataset=movielens limit=all | sbatch",
    "schedule cluster=kuberay cluster.kuberay.image=registry/laser:1 | kubectl apply -f -",
]
Renderer = Callable[[ClusterJob], str]
RENDER: dict[str, Renderer] = {
    "kuberay": render_rayjob,
    "slurm": render_slurm,
    "crontab": render_crontab,
    "airflow": render_airflow,
}
SCHEDULE: dict[str, Renderer] = {
    "kuberay": render_cronjob,
    "crontab": render_crontab,
    "airflow": render_airflow,
}
REPEATED = ("crontab", "airflow")  # what `render` prints of them runs each night


@dataclass
class Request:
    """What stands on the command line beside overrides and common options."""

    verb: str
    job: str = "nightly"
    submission_id: str | None = None
    is_waiting: bool = True
    overrides: list[str] = field(default_factory=list)  # and common options, for `jobs.cli`


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit code; that of the job for `submit` and `logs`."""
    words = list(sys.argv[1:] if argv is None else argv)
    request: Request | None = None
    problem: ConfigError | None = None
    try:
        request = parse(words)
    except ConfigError as error:
        problem = error

    config_name = config_of(request.job) if request else "generate"

    @entry_point("cluster", SUMMARY, config_name=config_name, examples=EXAMPLES)
    def job(settings: RunSettings) -> None:
        if problem is not None or request is None:
            raise problem or ConfigError("no verb")
        VERBS[request.verb](request, settings)

    wants_help = not words or words[0] in ("-h", "--help")
    if problem is not None and not wants_help:
        return job([])
    return job(["--help"] if wants_help or request is None else request.overrides)


def config_of(job: str) -> str:
    """The file of configs/ that the job composes."""
    return job if (CONFIGS / f"{job}.yaml").is_file() else "generate"


def parse(words: list[str]) -> Request:
    """Read the verb and its options; `ConfigError` if they make no sense."""
    verb = words[0] if words else ""
    if verb not in VERBS:
        raise ConfigError(f"{verb}: no such verb; one of {', '.join(VERBS)}")
    request = Request(verb)
    rest = iter(words[1:])
    for word in rest:
        option, _, value = word.partition("=")
        if option == "--job":
            request.job = value
        elif option == "--id":
            request.submission_id = value
        elif word in ("--no-wait", "--no-follow"):
            request.is_waiting = False
        elif word == "--config-dir":  # its folder is neither an override nor a submission id
            request.overrides.append(f"{word}={next(rest, '')}")
        elif verb in ("status", "logs", "stop") and "=" not in word and not word.startswith("-"):
            request.submission_id = word
        else:
            request.overrides.append(word)
    if request.job not in JOBS:
        raise ConfigError(f"--job={request.job}: must be one of {', '.join(JOBS)}")
    return request


def _cluster_job(request: Request, settings: RunSettings) -> ClusterJob:
    """The job with the defaults of the machines that will run it, not of this one."""
    arguments = parse_arguments(request.overrides)
    overrides, config_dir = arguments.overrides, arguments.config_dir
    backend = _backend_there(settings)
    if backend is not None and backend != os.environ.get(BACKEND_VARIABLE):
        os.environ[BACKEND_VARIABLE] = backend
        settings = load_settings(config_of(request.job), overrides, config_dir)
    return ClusterJob(request.job, tuple(overrides), settings, config_dir)


def _backend_there(settings: RunSettings) -> str | None:
    cluster = settings.cluster
    for place in (cluster.kuberay, cluster.slurm):
        if place is not None:
            return "gpu" if place.node.gpus else "cpu"
    return cluster.ray_jobs.backend if cluster.ray_jobs is not None else None


def _render(request: Request, settings: RunSettings) -> None:
    _print_with(RENDER, request, settings)


def _schedule(request: Request, settings: RunSettings) -> None:
    if settings.cluster.slurm is not None:
        raise ConfigError("cluster=slurm: has no schedule; let cron call sbatch (docs/operations.md)")
    _print_with(SCHEDULE, request, settings)


def _print_with(renderers: dict[str, Renderer], request: Request, settings: RunSettings) -> None:
    found = [name for name in renderers if getattr(settings.cluster, name) is not None]
    if not found:
        raise ConfigError(f"cluster: choose cluster={'|'.join(renderers)}")
    _check_cutoff(request, settings, is_repeated=renderers is SCHEDULE or found[0] in REPEATED)
    print(renderers[found[0]](_cluster_job(request, settings)), end="")


def _check_cutoff(request: Request, settings: RunSettings, is_repeated: bool) -> None:
    """Refuse a cutoff that would be the same each night; a script for `sbatch` may be meant for once."""
    is_fixed = settings.history_cutoff is not None and settings.cutoff_word is None
    if not is_fixed or request.job not in ("nightly", "generate"):
        return
    what = "would be the same each night; write history_cutoff=today or yesterday"
    if is_repeated:
        raise ConfigError(f"history_cutoff={settings.history_cutoff:%Y-%m-%dT%H:%MZ}: {what}")
    if settings.cluster.slurm is not None:
        print(f"history_cutoff is a fixed date: if this script is for each night, it {what}", file=sys.stderr)


def _submit(request: Request, settings: RunSettings) -> None:
    job = _cluster_job(request, settings)
    client = ray_jobs.connect(_ray_jobs(settings))
    submission_id = ray_jobs.submit(client, job, request.submission_id)
    print(f"submitted {submission_id}", file=sys.stderr, flush=True)
    if not request.is_waiting:
        return
    try:
        ray_jobs.follow(client, submission_id, _show)
    except Terminated as error:  # a scheduler such as Airflow ends its task
        ray_jobs.stop(client, submission_id)
        message = f"{submission_id}: stopped, because this process was; what it finished is kept"
        raise ray_jobs.RemoteJobError(message, error.exit_code) from error
    except KeyboardInterrupt:
        print(
            f"{submission_id} goes on; `python -m jobs.cluster stop {submission_id}` ends it", file=sys.stderr
        )
        raise


def _status(request: Request, settings: RunSettings) -> None:
    client = ray_jobs.connect(_ray_jobs(settings))
    print(ray_jobs.describe(ray_jobs.state(client, _id(request))))


def _logs(request: Request, settings: RunSettings) -> None:
    client = ray_jobs.connect(_ray_jobs(settings))
    if request.is_waiting:
        ray_jobs.follow(client, _id(request), _show)
    else:
        _show(ray_jobs.log_so_far(client, _id(request)))


def _stop(request: Request, settings: RunSettings) -> None:
    ray_jobs.stop(ray_jobs.connect(_ray_jobs(settings)), _id(request))


def _ray_jobs(settings: RunSettings) -> ray_jobs.RayJobsSettings:
    if settings.cluster.ray_jobs is None:
        raise ConfigError("cluster.ray_jobs: missing; choose cluster=ray")
    return settings.cluster.ray_jobs


def _id(request: Request) -> str:
    if not request.submission_id:
        raise ConfigError(f"{request.verb}: needs the submission id")
    return request.submission_id


def _show(text: str) -> None:
    print(text, end="", flush=True)


VERBS: dict[str, Callable[[Request, RunSettings], None]] = {
    "render": _render,
    "schedule": _schedule,
    "submit": _submit,
    "status": _status,
    "logs": _logs,
    "stop": _stop,
}


if __name__ == "__main__":
    sys.exit(main())
