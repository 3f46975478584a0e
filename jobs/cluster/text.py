"""Slurm, cron and Airflow: manifests that are text, from templates/."""

import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.cluster.command import ClusterJob, checkout_of, joined
from pipeline.environment import BACKEND_VARIABLE
from pipeline.errors import ConfigError

TEMPLATES = Path(__file__).parent / "templates"
OBJECT_STORE_BYTES = 2**30  # rows go by file, not through Ray
STILL_RUNNING = 75  # EX_TEMPFAIL: the night before has not ended
LOG_LINES_IN_MAIL = 20


def render_slurm(job: ClusterJob) -> str:
    """A batch script for `sbatch`. Its Ray is its own, and gone when it ends."""
    slurm = job.cluster.slurm
    if slurm is None:
        raise ConfigError("cluster.slurm: missing; choose cluster=slurm")
    return _rendered(
        "slurm.sh.j2",
        title=job.title,
        num_nodes=slurm.num_nodes,
        node=slurm.node,
        minutes=_minutes(slurm.max_hours),
        partition=slurm.partition,
        account=slurm.account,
        setup=slurm.setup,
        checkout=checkout_of(slurm.checkout),
        backend_variable=BACKEND_VARIABLE,
        backend="gpu" if slurm.node.gpus else "cpu",
        object_store_bytes=OBJECT_STORE_BYTES,
        command=joined(["python", *job.words(None)]),
    )


def render_crontab(job: ClusterJob) -> str:
    """Lines for `crontab -e`. Output goes to a log; cron mails the end of it if the night fails."""
    crontab = job.cluster.crontab
    if crontab is None:
        raise ConfigError("cluster.crontab: missing; choose cluster=crontab")
    return _rendered(
        "crontab.j2",
        title=job.title,
        timezone=job.cluster.schedule.timezone,
        cron=job.cluster.schedule.cron,
        mail_to=crontab.mail_to,
        line=_cron_line(job, checkout_of(crontab.checkout)),
    )


def _cron_line(job: ClusterJob, checkout: str) -> str:
    """One line of shell: one night at a time, output to a log, exit code and the log's end on failure."""
    logs = _local_folder(job) / "logs"
    lock, log = (shlex.quote(str(logs / f"{job.title}{ending}")) for ending in (".lock", ".log"))
    command = joined([f"{checkout}/.venv/bin/python", *job.words(None)])
    return (
        f"cd {shlex.quote(checkout)} && mkdir -p {shlex.quote(str(logs))} && "
        f"{{ flock -n -E {STILL_RUNNING} {lock} {command} >> {log} 2>&1; code=$?; "
        f'[ "$code" -eq 0 ] || {{ echo "{job.title}: exit code $code; the end of "{log}; '
        f'tail -n {LOG_LINES_IN_MAIL} {log}; }}; exit "$code"; }}'
    )


def _local_folder(job: ClusterJob) -> Path:
    data = job.settings.paths.data
    return Path.home() if "://" in data else Path(data)


def render_airflow(job: ClusterJob) -> str:
    """A DAG of one task, which submits the job and follows it."""
    airflow, ray_jobs = job.cluster.airflow, job.cluster.ray_jobs
    if airflow is None or ray_jobs is None:
        raise ConfigError("cluster.airflow: missing; choose cluster=airflow")
    checkout = checkout_of(airflow.checkout)
    words = [word for word in job.words(None)[2:] if not word.startswith("--config-dir")]
    submit = [f"{checkout}/.venv/bin/python", "-m", "jobs.cluster", "submit", f"--job={job.name}"]
    place = ["cluster=ray", *(f"cluster.ray_jobs.{key}={value}" for key, value in _given(ray_jobs))]
    return _rendered(
        "airflow_dag.py.j2",
        dag_id=airflow.dag_id,
        task_id=job.name,
        cron=job.cluster.schedule.cron,
        timezone=job.cluster.schedule.timezone,
        command=joined([*submit, *place, *words]) + " ",  # the space: .sh at the end would name a template
        checkout=checkout,
        num_retries=airflow.num_retries,
        minutes=_minutes(airflow.max_hours),
    )


def _given(ray_jobs: Any) -> list[tuple[str, object]]:
    values = ray_jobs.model_dump(mode="json").items()
    return [
        (key, str(value).lower() if isinstance(value, bool) else value)
        for key, value in values
        if value is not None
    ]


def _minutes(hours: float) -> int:
    return max(1, round(hours * 60))


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["quoted"] = shlex.quote
    environment.filters["python"] = repr
    return environment.get_template(template).render(**values)
