"""A running Ray cluster: submit a job through its dashboard, follow its log, ask for its state, stop it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from jobs.cluster.command import CHECKOUT, ClusterJob, joined
from pipeline.cluster_settings import RayJobsSettings
from pipeline.environment import BACKEND_VARIABLE, NO_TELEMETRY
from pipeline.errors import ConfigError, MachineError, PipelineError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

# Beside what .gitignore names (data/, .venv): not needed to run a job.
NOT_UPLOADED = ["/.git/", "/tests/", "/docs/", "/.venv/", "/data/"]
SETTLE_SEC = 5.0  # a job's log ends before its state says so
QUIET_SEC = 300.0  # a stream without a word for so long is begun anew
RECONNECT_SEC = 300.0  # how long the dashboard may be away
RETRY_SEC = 5.0
AGENT_SEC = 120.0  # how long a cluster that has just started may be without an agent that takes jobs
NO_AGENT = "no available agent"
Show = Callable[[str], None]


class RemoteJobError(PipelineError):
    """A submitted job ended badly; `exit_code` is the job's own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def connect(ray_jobs: RayJobsSettings) -> "JobSubmissionClient":
    """A client of the dashboard; `MachineError` if nothing answers."""
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(ray_jobs.dashboard)
    except (ConnectionError, RuntimeError, OSError) as error:
        raise MachineError(
            f"cluster.ray_jobs.dashboard={ray_jobs.dashboard}: no Ray dashboard answers ({error})"
        ) from error


def submit(client: "JobSubmissionClient", job: ClusterJob, submission_id: str | None = None) -> str:
    """Start `job` on the cluster's head; returns its submission id.

    If the cluster has the same job under this id already, nothing is started: a submission whose answer was
    lost is given again. Raises `ConfigError` if it has another one.
    """
    ray_jobs = job.cluster.ray_jobs
    assert ray_jobs is not None
    environment = dict(NO_TELEMETRY)
    if ray_jobs.backend is not None:
        environment[BACKEND_VARIABLE] = ray_jobs.backend
    runtime_env: dict[str, Any] = {"env_vars": environment}
    if ray_jobs.upload_code:
        runtime_env |= {"working_dir": str(CHECKOUT), "excludes": NOT_UPLOADED}
    command = joined(["python", *job.words(job.cluster.address)])
    request = {
        "entrypoint": command,
        "submission_id": submission_id,
        "runtime_env": runtime_env,
        "metadata": {"job": job.name, "dataset": job.settings.dataset.name},
    }
    with _as_config_error(submission_id):
        try:
            return _submitted(client, request)
        except RuntimeError:
            if submission_id is None or not _is_there(client, submission_id, command):
                raise
            return submission_id


def _is_there(client: "JobSubmissionClient", submission_id: str, command: str) -> bool:
    """Whether the cluster has this job; `ConfigError` if it has another one of this id."""
    try:
        info = client.get_job_info(submission_id)
    except RuntimeError:
        return False
    if info.entrypoint != command:
        raise ConfigError(f"--id={submission_id}: the cluster has another job of this id: {info.entrypoint}")
    logger.info("%s was submitted before (%s); another --id starts it anew", submission_id, info.status.value)
    return True


def _submitted(client: "JobSubmissionClient", request: dict[str, Any]) -> str:
    """Submit, again and again while the cluster has no agent yet: nothing of such a request is begun."""
    waited_until = time.monotonic() + AGENT_SEC
    while True:
        try:
            return str(client.submit_job(**request))
        except RuntimeError as error:
            if NO_AGENT not in str(error).casefold() or time.monotonic() > waited_until:
                raise
            logger.info("the cluster takes no jobs yet; asking again")
            time.sleep(RETRY_SEC)


def follow(client: "JobSubmissionClient", submission_id: str, show: Show) -> None:
    """Show the job's log until its state is final; raise `RemoteJobError` unless it succeeded.

    A stream that ends or breaks off before is asked for again, and the log goes on where it was; a dashboard
    that answers nothing is given up after `RECONNECT_SEC`.
    """
    state(client, submission_id)
    log = _Log(show)
    heard_at = time.monotonic()
    while True:
        try:
            with suppress(TimeoutError):  # silence: a connection that is dead looks no different
                asyncio.run(_tail(client, submission_id, log))
            info = _settled(client, submission_id)
            if info.status.is_terminal():
                break
            heard_at = time.monotonic()
        except _lost() as error:
            _reject_unknown(submission_id, error)
            heard_at = max(heard_at, log.grew_at)
            if time.monotonic() - heard_at > RECONNECT_SEC:
                raise RemoteJobError(f"{submission_id}: the dashboard was lost ({error})", 1) from error
            logger.warning("%s: the log broke off (%s); asking again", submission_id, error)
            time.sleep(RETRY_SEC)
    _require_success(submission_id, info)


class _Log:
    """What is shown of a log that is read from its start again and again: each character once."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._num_shown = self._num_read = 0
        self.grew_at = 0.0

    def begin(self) -> None:
        """A new stream begins."""
        self._num_read = 0

    def take(self, text: str) -> None:
        """The next piece of the stream."""
        new = text[max(0, self._num_shown - self._num_read) :]
        self._num_read += len(text)
        if new:
            self._num_shown, self.grew_at = self._num_read, time.monotonic()
            self._show(new)


async def _tail(client: "JobSubmissionClient", submission_id: str, log: _Log) -> None:
    """Hand the job's log to `log` until the stream ends; `TimeoutError` after `QUIET_SEC` without a word."""
    log.begin()
    stream = aiter(client.tail_job_logs(submission_id))
    while True:
        try:
            log.take(await asyncio.wait_for(anext(stream), QUIET_SEC))
        except StopAsyncIteration:
            return


def _lost() -> tuple[type[Exception], ...]:
    """What a dashboard that is away, or goes away, raises."""
    from aiohttp import ClientError

    return (ClientError, RuntimeError, OSError)


def _reject_unknown(submission_id: str, error: Exception) -> None:
    if "does not exist" in str(error).casefold():
        raise ConfigError(f"{submission_id}: the cluster knows no such job") from error


def _settled(client: "JobSubmissionClient", submission_id: str) -> Any:
    """The job's details, once its state is final; otherwise those of `SETTLE_SEC` later."""
    deadline = time.monotonic() + SETTLE_SEC
    while True:
        info = client.get_job_info(submission_id)
        if info.status.is_terminal() or time.monotonic() > deadline:
            return info
        time.sleep(0.2)


def _require_success(submission_id: str, info: Any) -> None:
    """Raise `RemoteJobError` with the job's exit code unless it succeeded."""
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
        _reject_unknown(str(submission_id), error)
        raise ConfigError(f"the cluster refused: {' '.join(str(error).split())[:300]}") from error
