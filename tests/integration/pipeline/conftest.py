"""An S3 server on this machine, for tests whose data lies in an object store."""

import os
import socket
import subprocess
import sys
import time

import pytest
import s3fs

from pipeline.storage.location import data_path

SERVER_START_SEC = 60


@pytest.fixture(scope="module")
def environment():
    """What a module sets is gone after it."""
    before = os.environ.copy()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def bucket(environment, tmp_path_factory):
    """URI of a bucket on a real S3 server; every process started afterwards finds the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In a process of its own: vLLM's start looks at all objects of all modules, and Flask's refuse that.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(port)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        LASER_CACHE_DIR=str(tmp_path_factory.mktemp("cache")),
    )
    s3fs.S3FileSystem.clear_instance_cache()  # an earlier module's server had another address
    data_path("s3://knowledge/x").fs.mkdir("knowledge")
    yield "s3://knowledge"
    server.kill()
    server.wait()


def _wait_for(port):
    deadline = time.monotonic() + SERVER_START_SEC
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)
