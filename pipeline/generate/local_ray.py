"""Ray on this machine only, started by a process of its own that this one watches.

Ray's core ends the process that starts it, without an exception, if Ray's other processes do not answer in
time; and what it raises has neither a class nor a text of its own. So whatever keeps a start from succeeding,
a time-out, a full machine, a process that is gone, is seen here from outside, and tried again.
"""

import json
import logging
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from pipeline.environment import variables_for_children
from pipeline.errors import MachineError

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  # Ray waits 30 s for itself, which a busy machine of two cores can exceed
RETRY_SEC = 5.0  # before the second attempt; twice that before the third
START_SEC = 180.0  # Ray gives up by itself before that
END_SEC = 15.0
# Read by Ray when it starts.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: any other process on the machine would starve the engine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@contextmanager
def local_ray(options: dict[str, Any], connection: dict[str, Any], run_log: Path) -> Iterator[None]:
    """Start Ray with `options` of `ray.init`, connect with those in `connection`, and end it with the block.

    Ray's processes end with this one too, even if it is killed. What they say goes to `run_log`. Raises
    `MachineError` with the last reason if no attempt succeeds.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # else Ray writes a token into the home folder
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with _started(options, connection, run_log):
        yield


def _started(options: dict[str, Any], connection: dict[str, Any], run_log: Path) -> ExitStack:
    """What ends the Ray that was started, after as many attempts as it took."""
    for attempt in range(1, START_ATTEMPTS + 1):
        with ExitStack() as stack:
            try:
                address = stack.enter_context(_head(options, run_log))
                stack.callback(ray.shutdown)
                _expect_token()
                ray.init(address=address, **connection)
            except Exception as error:  # noqa: BLE001  Ray raises no narrower class
                reason = " ".join(str(error).split()) or type(error).__name__
            else:
                return stack.pop_all()
        logger.warning("Ray did not start (%d of %d): %s", attempt, START_ATTEMPTS, reason)
        if attempt < START_ATTEMPTS:
            time.sleep(attempt * RETRY_SEC)
    raise MachineError(
        f"Ray did not start on this machine in {START_ATTEMPTS} attempts; is it overloaded or full? "
        f"{reason}; see {run_log}"
    )


@contextmanager
def _head(options: dict[str, Any], run_log: Path) -> Iterator[str]:
    """A process that starts Ray, and ends it when the block or this process ends; yields the address."""
    command = [sys.executable, "-m", __name__, json.dumps(options)]
    # Workers find the modules that this process finds.
    modules = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with run_log.open("ab") as log, variables_for_children(modules):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for this process, which ends Ray in order
        )
    try:
        yield _address(process)
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=END_SEC)  # closes its input, which it waits for
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes]) -> str:
    """Where the Ray that `process` starts can be reached."""
    assert process.stdout is not None
    is_answered = select.select([process.stdout], [], [], START_SEC)[0]
    answer = json.loads(process.stdout.readline() or "{}") if is_answered else {}
    if "address" in answer:
        return str(answer["address"])
    if not is_answered:
        raise TimeoutError(f"no answer in {START_SEC:.0f} s")
    code = process.wait(END_SEC)
    raise RuntimeError(answer.get("error", f"the process that starts it ended with code {code}"))


def _expect_token() -> None:
    """Ray asks for a token where it is started by default, and reads this only when it is imported."""
    with suppress(ImportError):  # a Ray that has no tokens
        from ray._private.authentication.authentication_token_setup import enable_token_auth_by_default

        enable_token_auth_by_default()


def main() -> None:
    """Start Ray, tell its address on the standard output, and end it when the standard input ends."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # whatever else is said here is for the log
        try:
            ray.init(address="local", **json.loads(sys.argv[1]))
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answer, flush=True)
            raise
        print(json.dumps({"address": ray.get_runtime_context().gcs_address}), file=answer, flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
