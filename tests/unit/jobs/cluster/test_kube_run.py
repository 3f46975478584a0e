"""The waiting pod against a server that answers as the API server does; here there is no Kubernetes."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class ApiServer(BaseHTTPRequestHandler):
    """Takes one RayJob; its states are `script`, one for each question. An int is an HTTP error."""

    script: list = []
    created: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.created.append((self.path, self.headers["Authorization"], body))
        if self.script and self.script[0] == "refuse":
            self.answer(403, {"message": "rayjobs is forbidden"})
        else:
            self.answer(201, {"metadata": {"name": body["metadata"]["generateName"] + "abcde"}})

    def do_GET(self):
        state = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(state, int):
            self.answer(state, {"message": "planted"})
        else:
            self.answer(200, {"status": dict(zip(("jobDeploymentStatus", "jobStatus"), state, strict=True))})

    def answer(self, code, content):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def night(tmp_path):
    """Run the pod's command against a server with this script of states."""
    (tmp_path / "token").write_text("secret-token\n")
    manifest = {"metadata": {"generateName": "laser-", "namespace": "ml"}, "spec": {}}
    (tmp_path / "rayjob.json").write_text(json.dumps(manifest))
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(*script):
        ApiServer.script, ApiServer.created = list(script), []
        variables = {
            "KUBE_API": f"http://127.0.0.1:{server.server_port}",
            "KUBE_ACCOUNT": str(tmp_path),
            "KUBE_POLL_SEC": "0.01",
            "JOB_NAME": "laser-123",
            "JOB_UID": "u-1",
        }
        return subprocess.run(
            [sys.executable, "-m", "jobs.cluster.kube_run", str(tmp_path / "rayjob.json")],
            env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    yield run
    server.shutdown()
    server.server_close()


def test_a_good_night(night):
    done = night(("", ""), ("Running", "RUNNING"), 503, ("Running", "RUNNING"), ("Complete", "SUCCEEDED"))
    assert done.returncode == 0, done.stderr
    states = ["laser-abcde: Running RUNNING", "laser-abcde: Complete SUCCEEDED"]
    assert done.stdout.splitlines() == ["created laser-abcde", *states]
    ((path, authorization, body),) = ApiServer.created
    assert path == "/apis/ray.io/v1/namespaces/ml/rayjobs" and authorization == "Bearer secret-token"
    assert body["metadata"]["ownerReferences"][0]["uid"] == "u-1"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ([("Failed", "FAILED")], 1, "laser-abcde: FAILED"),
        ([("Complete", "STOPPED")], 1, "laser-abcde: STOPPED"),
        ([("Running", "RUNNING"), 404], 1, "404 planted"),
        (["refuse"], 2, "could not be created: 403 rayjobs is forbidden"),
    ],
)
def test_a_bad_night_ends_badly_and_says_why(night, script, code, reason):
    done = night(*script)
    assert done.returncode == code and reason in done.stderr
