"""Where files are: local paths, URIs, archives, and web servers."""

import http.server
import threading
import zipfile
from functools import partial

import fsspec
import pytest

from pipeline.domains.raw.sources import find_sources
from pipeline.errors import DataError


def found(patterns, base=None) -> list[str]:
    return [
        source.location for source in find_sources(patterns, None if base is None else str(base), "files")
    ]


@pytest.fixture
def folder(tmp_path):
    for name in ("a1.csv", "a2.csv", "b[1].csv"):
        (tmp_path / name).write_text(f"{name}\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("in/a1.csv", "in/a2.csv"):
            archive.writestr(name, f"{name}\n")
    return tmp_path


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.startswith("/short"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        return self.wfile.write(b"too little")

    def do_HEAD(self) -> None:
        if not self.path.startswith("/short"):
            return super().do_HEAD()
        self.send_response(200)
        self.send_header("Content-Length", "100")
        return self.end_headers()


@pytest.fixture
def web(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_of_a_web_server(web):
    assert found("a1.csv", web) == found(f"{web}/a1.csv") == [f"{web}/a1.csv"]
    assert found(f"{web}/a*.csv") == [f"{web}/a1.csv", f"{web}/a2.csv"]
    assert found(f"simplecache::{web}/a*.csv") == [f"simplecache::{web}/a{n}.csv" for n in (1, 2)]
    [source] = find_sources(f"{web}/a1.csv?token=x.gz", None, "files")
    assert (source.name, source.extension, source.open().read()) == ("a1.csv", ".csv", b"a1.csv\n")
    with pytest.raises(DataError, match=r"no.csv: there is no such file"):
        found(f"{web}/no.csv")


@pytest.mark.parametrize("cached", ["", "simplecache::"])
def test_a_connection_that_breaks_is_an_error_that_readers_know(web, cached):
    [source] = find_sources(f"{cached}{web}/short.csv", None, "files")
    with pytest.raises((OSError, DataError), match="payload"):
        source.open().read()


def test_local_files_by_uri(folder):
    for base, pattern in (
        (f"file://{folder}", "a*.csv"),
        (f"file://{folder}/", "a*.csv"),
        (None, f"file://{folder}/a*.csv"),
    ):
        assert found(pattern, base) == [f"file://{folder}/a1.csv", f"file://{folder}/a2.csv"]
    assert found(str(folder / "a1.csv"), f"file://{folder}") == [str(folder / "a1.csv")]
    assert found(f"file://{folder}/b[1].csv") == [f"file://{folder}/b[1].csv"]
    assert found(f"simplecache::file://{folder}/a1.csv") == [f"simplecache::file://{folder}/a1.csv"]


def test_an_archive_lies_below_the_raw_folder(folder):
    [first, second] = find_sources("zip://in/*.csv::all.zip", str(folder), "files")
    assert first.location == f"zip://in/a1.csv::{folder}/all.zip"
    assert (first.name, second.open().read()) == ("a1.csv", b"in/a2.csv\n")
    assert found("zip://in/a1.csv::all.zip", f"file://{folder}") == [
        f"zip://in/a1.csv::file://{folder}/all.zip"
    ]
    assert found("a*.csv", f"zip://in::{folder}/all.zip")[1] == f"zip://in/a2.csv::{folder}/all.zip"
    assert found("in/a1.csv", f"zip://::{folder}/all.zip") == [f"zip://in/a1.csv::{folder}/all.zip"]


def test_an_archive_in_memory():
    memory = fsspec.filesystem("memory")
    memory.pipe("/shelf/x.csv", b"x\n")
    assert [source.open().read() for source in find_sources("*.csv", "memory://shelf", "files")] == [b"x\n"]


@pytest.mark.parametrize(("name", "protocol"), [("a.csv.zip", "zip"), ("a.tar.gz", "tar"), ("a.tgz", "tar")])
def test_of_an_archive_the_files_are_to_be_named(tmp_path, name, protocol):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        found(name, tmp_path)
    assert f"{protocol}://*.csv::{tmp_path / name}" in str(caught.value)
