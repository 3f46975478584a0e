"""A running Ray cluster: submit a job through its dashboard, follow its log, ask for its state, stop it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobs.cluster.command import CHECKOUT, ClusterJob, joined
from pipeline.cluster_settings import RayJobsSettings
from pipeline.environment import BACKEND_VARIABLE, NO_TELEMETRY
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

# Beside what .gitignore names (data/, .venv): not needed to run a job.
NOT_UPLOADED = ["/.git/", "/tests/", "/docs/", "/.venv/", "/data/"]
SETTLE_SEC = 60.0  # a job's log ends before its state says so
RECONNECT_SEC = 300.0  # how long the dashboard may be away
RETRY_SEC = 5.0
Show = Callable[[str], None]


class RemoteJobError(PipelineError):
    """A submitted job ended badly; `exit_code` is the job's own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def connect(ray_jobs: RayJobsSettings) -> "JobSubmissionClient":
    """A client of the dashboard; `ConfigError` if nothing answers."""
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(ray_jobs.dashboard)
    except (ConnectionError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"cluster.ray_jobs.dashboard={ray_jobs.dashboard}: no Ray dashboard answers ({error})"
        ) from error


def submit(client: "JobSubmissionClient", job: ClusterJob, submission_id: str | None = None) -> str:
    """Start `job` on the cluster's head; returns its submission id."""
    ray_jobs = job.cluster.ray_jobs
    assert ray_jobs is not None
    environment = dict(NO_TELEMETRY)
    if ray_jobs.backend is not None:
        environment[BACKEND_VARIABLE] = ray_jobs.backend
    runtime_env: dict[str, Any] = {"env_vars": environment}
    if ray_jobs.upload_code:
        runtime_env |= {"working_dir": str(CHECKOUT), "excludes": NOT_UPLOADED}
    with _as_config_error(submission_id):
        return str(
            client.submit_job(
                entrypoint=joined(["python", *job.words(job.cluster.address)]),
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata={"job": job.name, "dataset": job.settings.dataset.name},
            )
        )


def follow(client: "JobSubmissionClient", submission_id: str, show: Show) -> None:
    """Show the job's log while it runs; raise `RemoteJobError` unless it succeeds.

    A dashboard that goes away is asked again for `RECONNECT_SEC`; the log then goes on where it was.
    """
    num_shown, lost_at = 0, None
    while True:
        try:
            num_shown = asyncio.run(_tail(client, submission_id, show, num_shown))
            break
        except (TimeoutError, RuntimeError, OSError) as error:
            if "does not exist" in str(error):
                raise ConfigError(f"{submission_id}: the cluster knows no such job") from error
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > RECONNECT_SEC:
                raise RemoteJobError(f"{submission_id}: the dashboard was lost ({error})", 1) from error
            logger.warning("%s: the log broke off (%s); asking again", submission_id, error)
            time.sleep(RETRY_SEC)
    require_success(client, submission_id)


async def _tail(client: "JobSubmissionClient", submission_id: str, show: Show, num_shown: int) -> int:
    """Show what follows the first `num_shown` characters; returns how many there were in all."""
    num_seen = 0
    async for text in client.tail_job_logs(submission_id):
        new = text[max(0, num_shown - num_seen) :]
        num_seen += len(text)
        if new:
            show(new)
    return max(num_seen, num_shown)


def require_success(client: "JobSubmissionClient", submission_id: str) -> None:
    """Wait until the job's state is final; raise `RemoteJobError` with its exit code unless it succeeded."""
    deadline = time.monotonic() + SETTLE_SEC
    while True:
        info = state(client, submission_id)
        if info.status.is_terminal() or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if info.status.value == "SUCCEEDED":
        return
    code = info.driver_exit_code
    raise RemoteJobError(f"{submission_id}: {describe(info)}", code if code and code > 0 else 1)


def state(client: "JobSubmissionClient", submission_id: str) -> Any:
    """Ray's `JobDetails`; `ConfigError` if there is no such job."""
    with _as_config_error(submission_id):
        return client.get_job_info(submission_id)


def describe(info: Any) -> str:
    """State and exit code in a few words, and Ray's message unless it only repeats them."""
    code = "" if info.driver_exit_code is None else f", exit code {info.driver_exit_code}"
    words = " ".join((info.message or "").split()[:30])
    return f"{info.status.value}{code}" + (f" ({words})" if words and info.driver_exit_code is None else "")


def stop(client: "JobSubmissionClient", submission_id: str) -> None:
    """Ask the job to end; what it finished is kept."""
    with _as_config_error(submission_id):
        client.stop_job(submission_id)


def log_so_far(client: "JobSubmissionClient", submission_id: str) -> str:
    """The job's output up to now."""
    with _as_config_error(submission_id):
        return str(client.get_job_logs(submission_id))


@contextmanager
def _as_config_error(submission_id: str | None) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what the client raises for every answer but 200
        text = " ".join(str(error).split())
        if "does not exist" in text:
            raise ConfigError(f"{submission_id}: the cluster knows no such job") from error
        raise ConfigError(f"the cluster refused: {text[:300]}") from error
