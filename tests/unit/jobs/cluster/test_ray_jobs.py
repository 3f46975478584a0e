"""Following a job whose dashboard comes and goes. The cluster is played; tests/integration has a real one."""

from types import SimpleNamespace

import aiohttp
import pytest
from ray.job_submission import JobStatus

from jobs.cluster import ray_jobs
from jobs.cluster.ray_jobs import RemoteJobError, follow
from pipeline.errors import ConfigError

RUNNING, DONE = JobStatus.RUNNING, JobStatus.SUCCEEDED


class Client:
    """Each stream is a list of texts, perhaps with an exception at its end; states are told in turn."""

    def __init__(self, streams, states):
        self.streams, self.states = list(streams), list(states)

    async def tail_job_logs(self, submission_id):
        for piece in self.streams.pop(0):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def get_job_info(self, submission_id):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(status=state, driver_exit_code=None, message="")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ray_jobs, "SETTLE_SEC", 0.0)
    monkeypatch.setattr(ray_jobs, "RETRY_SEC", 0.0)


def shown(client):
    texts = []
    follow(client, "night", texts.append)
    return "".join(texts)


@pytest.mark.parametrize(
    "broken",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("half"),
        RuntimeError("WebSocket connection closed unexpectedly with close code 1006"),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_log_that_breaks_off_goes_on_where_it_was(broken):
    client = Client(
        [["one\ntw", broken], ["one\n", "two\nthree\n", broken], ["one\ntwo\nthree\nfour\n"]], [DONE]
    )
    assert shown(client) == "one\ntwo\nthree\nfour\n"


def test_a_stream_that_is_closed_while_the_job_runs_is_asked_for_again():
    client = Client([["one\n"], [], ["one\ntwo\n"]], [RUNNING, RUNNING, RUNNING, DONE])
    assert shown(client) == "one\ntwo\n"


def test_a_silent_stream_is_begun_anew(monkeypatch):
    monkeypatch.setattr(ray_jobs, "QUIET_SEC", 0.01)
    client = Client([["one\n", TimeoutError()], ["one\ntwo\n"]], [RUNNING, RUNNING, DONE])
    assert shown(client) == "one\ntwo\n"


def test_the_state_may_be_out_of_reach_for_a_while():
    client = Client([["one\n"], ["one\ntwo\n"]], [RUNNING, ConnectionError("away"), DONE])
    assert shown(client) == "one\ntwo\n"


def test_a_dashboard_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_jobs, "RECONNECT_SEC", -1.0)
    with pytest.raises(RemoteJobError, match="the dashboard was lost"):
        shown(Client([[aiohttp.ServerDisconnectedError()]], [RUNNING]))


def test_a_job_that_is_gone_and_one_that_failed_are_told_apart():
    gone = RuntimeError("Request failed with status code 404: Job night does not exist.")
    with pytest.raises(ConfigError, match="the cluster knows no such job"):
        shown(Client([["one\n"]], [RUNNING, gone]))
    with pytest.raises(RemoteJobError, match="night: FAILED"):
        shown(Client([["one\n"]], [JobStatus.FAILED]))


class StartingCluster:
    """Takes a job once its agent is there."""

    def __init__(self, num_refusals, answer="Request failed with status code 500: No available agent to"):
        self.refusals, self.requests = [RuntimeError(answer)] * num_refusals, []

    def submit_job(self, **request):
        self.requests.append(request)
        if self.refusals:
            raise self.refusals.pop()
        return request["submission_id"]


def test_a_cluster_that_has_no_agent_yet_is_asked_again(monkeypatch):
    cluster = StartingCluster(2)
    assert ray_jobs._submitted(cluster, {"submission_id": "night"}) == "night" and len(cluster.requests) == 3
    monkeypatch.setattr(ray_jobs, "AGENT_SEC", -1.0)
    with pytest.raises(RuntimeError, match="No available agent"):
        ray_jobs._submitted(StartingCluster(5), {"submission_id": "night"})


def test_a_cluster_that_refuses_for_another_reason_is_asked_once():
    cluster = StartingCluster(1, "Request failed with status code 400: a job with submission_id night exists")
    with pytest.raises(RuntimeError, match="exists"):
        ray_jobs._submitted(cluster, {"submission_id": "night"})
    assert len(cluster.requests) == 1
