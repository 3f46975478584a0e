"""Against a local server that speaks the hub's protocol, in processes that know no other hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.unit.pipeline.models.conftest import safetensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER = json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []})
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "acme/tiny": {
        "config.json": b"{}",
        "tokenizer.json": TOKENIZER.encode(),
        "model.safetensors": safetensors(b"weights" * 100),
        "pytorch_model.bin": b"pickle",
        "onnx/config.json": b"{}",
        "modeling.py": b"raise SystemExit",
    },
    "acme/lora": {
        "adapter_config.json": b'{"base_model_name_or_path": "acme/tiny"}',
        "adapter_model.safetensors": safetensors(b"x"),
        "tokenizer.json": TOKENIZER.encode(),
    },
    "acme/pickled": {"config.json": b"{}", "tokenizer.json": TOKENIZER.encode(), "pytorch_model.bin": b"x"},
}
RESOLVE = """
import json, sys
from pathlib import Path
from pipeline.errors import ModelError
from pipeline.models import resolve_model
from pipeline.settings import ModelSettings
given = json.loads(sys.argv[1])
with_weights = given.pop("with_weights", True)
settings = ModelSettings(name="x", max_model_len=64, **given)
try:
    source = resolve_model(settings, Path("unused"), with_weights)
except ModelError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({**vars(source), "files": sorted(file.name for file in Path(source.path).iterdir())}))
"""


class Hub(BaseHTTPRequestHandler):
    """The few answers that fetching a snapshot needs."""

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        for name, files in REPOSITORIES.items():
            if path.startswith(f"/api/models/{name}/"):
                kind, _, revision = path.removeprefix(f"/api/models/{name}/").partition("/")
                if revision.split("/")[0] not in ("main", COMMIT):
                    return self.refuse("RevisionNotFound")
                return self.send(json.dumps(self.described(name, files, kind)).encode(), "api", with_body)
            if path.startswith(f"/{name}/resolve/"):
                file = path.removeprefix(f"/{name}/resolve/").partition("/")[2]
                return self.send(files[file], hashlib.sha1(files[file]).hexdigest(), with_body)
        return self.refuse("RepoNotFound")

    def described(self, name: str, files: dict[str, bytes], kind: str) -> object:
        if kind == "tree":
            return [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
        return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}

    def send(self, body: bytes, etag: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


def resolve(endpoint: str, cache: Path, offline: bool = False, **settings: object) -> dict[str, object]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSF"))
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "no_proxy": "127.0.0.1"}
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    finished = subprocess.run(
        [sys.executable, "-c", RESOLVE, json.dumps(settings)],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        cwd=cache,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_fetches_safetensors_and_tokenizer_only_then_works_offline(endpoint, cache):
    fetched = resolve(endpoint, cache, path="acme/tiny")
    assert fetched["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (fetched["revision"], fetched["is_local"]) == (COMMIT, False)
    assert len(str(fetched["tokenizer_hash"])) == 64
    assert resolve("http://127.0.0.1:9", cache, offline=True, path="acme/tiny") == fetched


def test_without_weights_it_is_checked_that_the_hub_has_them(endpoint, tmp_path):
    found = resolve(endpoint, tmp_path, path="acme/tiny", with_weights=False)
    assert found["files"] == ["config.json", "tokenizer.json"]
    error = resolve("http://127.0.0.1:9", tmp_path, offline=True, path="acme/tiny", with_weights=False)[
        "error"
    ]
    assert "has no *.safetensors weights" in str(error), (
        "as the run would say, which cannot fetch them either"
    )


def test_code_is_fetched_only_when_trusted(endpoint, tmp_path):
    fetched = resolve(endpoint, tmp_path, path="acme/tiny", trust_remote_code=True)
    assert "modeling.py" in fetched["files"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"path": "acme/absent"}, "model.path=acme/absent: no such folder, and no such model on the hub"),
        ({"path": "acme/tiny", "revision": "v9"}, "model.revision=v9: no such revision on the hub"),
        ({"path": "acme/pickled"}, "model.path=acme/pickled: has no *.safetensors weights"),
        (
            {"path": "acme/pickled", "with_weights": False},
            "model.path=acme/pickled: has no *.safetensors weights (found pytorch_model.bin",
        ),
        (
            {"path": "acme/lora", "with_weights": False},
            "model.path=acme/lora: is a LoRA adapter of acme/tiny",
        ),
    ],
)
def test_what_the_hub_lacks_is_one_line(endpoint, tmp_path, settings, expected):
    error = str(resolve(endpoint, tmp_path, **settings)["error"])
    assert expected in error
    assert "\n" not in error


def test_offline_without_a_cached_copy_says_so(endpoint, tmp_path):
    error = str(resolve(endpoint, tmp_path, offline=True, path="acme/tiny")["error"])
    assert error.startswith("model.path=acme/tiny: no such folder, not in the hub's cache")
