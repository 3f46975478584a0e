"""In the nightly CronJob's pod: create the RayJob of a file, wait for its end, exit as it ended.

`python -m jobs.cluster.kube_run /etc/laser/rayjob.json`. The RayJob belongs to the pod's Job ($JOB_NAME,
$JOB_UID), so that the CronJob's history limits clear it away too. Only the standard library is used:
the pod has the memory of a shell script.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("KUBE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
POLL_SEC = float(os.environ.get("KUBE_POLL_SEC", "15"))
PATIENCE_SEC = 600.0  # how long the API server may be away
REQUEST_SEC = 60.0
ENDED = ("Complete", "Failed", "ValidationFailed")


def main(path: str) -> int:
    """0 if the run succeeded, 1 if it did not, 2 if it could not be created."""
    manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    if "JOB_UID" in os.environ:
        manifest["metadata"]["ownerReferences"] = [_owner()]
    collection = f"/apis/ray.io/v1/namespaces/{manifest['metadata']['namespace']}/rayjobs"
    try:
        name = _request(collection, manifest)["metadata"]["name"]
    except (OSError, ValueError) as error:
        print(f"error: the RayJob could not be created: {_reason(error)}", file=sys.stderr)
        return 2
    print(f"created {name}", flush=True)
    return _exit_code(name, _wait(f"{collection}/{name}", name))


def _owner() -> dict[str, str]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": os.environ["JOB_NAME"],
        "uid": os.environ["JOB_UID"],
    }


def _wait(resource: str, name: str) -> dict[str, Any]:
    """The status of the RayJob once it has ended."""
    shown, last_answer, has_ended = "", time.monotonic(), False
    while True:
        try:
            status = _request(resource).get("status", {})
            last_answer = time.monotonic()
        except (OSError, ValueError) as error:
            if _is_final(error) or time.monotonic() - last_answer > PATIENCE_SEC:
                return {"jobDeploymentStatus": "Failed", "message": _reason(error)}
        else:
            state = status.get("jobDeploymentStatus", "")
            if state != shown:
                print(f"{name}: {state} {status.get('jobStatus', '')}".rstrip(), flush=True)
                shown = state
            if state in ENDED and has_ended:  # twice: KubeRay may still make a retry of a failure
                return status
            has_ended = state in ENDED
        time.sleep(POLL_SEC)


def _exit_code(name: str, status: dict[str, Any]) -> int:
    if status["jobDeploymentStatus"] == "Complete" and status.get("jobStatus", "SUCCEEDED") == "SUCCEEDED":
        return 0
    reason = status.get("message") or status.get("reason") or status.get("jobStatus", "")
    print(f"error: {name}: {' '.join(str(reason).split())}", file=sys.stderr)
    return 1


def _request(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the API server: POST with `body`, else GET. Raises OSError (HTTPError is one), ValueError."""
    base = os.environ.get("KUBE_API") or (
        f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    )
    token = (ACCOUNT / "token").read_text(encoding="utf-8").strip()  # read each time: it is renewed
    request = urllib.request.Request(
        base + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    authority = ACCOUNT / "ca.crt"
    context = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
    with urllib.request.urlopen(request, timeout=REQUEST_SEC, context=context) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def _is_final(error: Exception) -> bool:
    """Whether asking again cannot help: the RayJob is gone, or may not be seen."""
    return isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        try:
            return f"{error.code} {json.load(error)['message']}"
        except (ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
