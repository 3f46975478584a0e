"""Where files are: local paths, URIs, archives, and web servers."""

import bz2
import gzip
import http.server
import io
import lzma
import re
import sqlite3
import tarfile
import threading
import zipfile
from functools import partial

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domains.raw.lines import read_line_blocks
from pipeline.domains.raw.sources import Source, find_sources
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


TEXT = b"user,item,stars\na,1,5\nb,2,4\n"
GZIPPED = gzip.compress(TEXT, mtime=0)  # the name of a test shows it: it must be the same in every process


def zipped(name="x.csv"):
    with zipfile.ZipFile(stored := io.BytesIO(), "w") as archive:
        archive.writestr(name, TEXT)
    return stored.getvalue()


def tarred():
    with tarfile.open(fileobj=(stored := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.csv"))
    return stored.getvalue()


def parquet():
    pq.write_table(pa.table({"user": ["a"]}), stored := io.BytesIO())
    return stored.getvalue()


def sqlite(folder):
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()
    return (folder / "x.db").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GZIPPED, "this is gzip data; its name must end with .gz, or decompress it first"),
        (bz2.compress(TEXT), "this is bzip2 data; its name must end with .bz2"),
        (lzma.compress(TEXT), "this is xz data; its name must end with .xz"),
        (zipped(), "this is a zip archive; name the files in it, for example zip://*.csv::{}"),
        (zipped("[Content_Types].xml"), "this is an Excel workbook; save it as CSV"),
        (tarred(), "this is a tar archive; name the files in it, for example tar://*.csv::{}"),
        (parquet(), "this is a Parquet file; `reader: tabular` reads it with `format: parquet`"),
        (sqlite, "this is an SQLite database"),
        (TEXT.decode().encode("utf-16"), "this is UTF-16 text; convert it first, for example"),
        (TEXT.decode().encode("utf-16-le"), "this is UTF-16LE text; convert it first, for exam"),
        (TEXT.decode().encode("utf-16-be"), "for example with `iconv -f UTF-16BE -t UTF-8`"),
        (TEXT.decode().encode("utf-32"), "this is UTF-32 text"),
        (b"<!DOCTYPE html>\n<html></html>", "this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "this is a Git LFS pointer"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_text_is_named_by_its_first_bytes(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_bytes(content(tmp_path) if callable(content) else content)
    for place in (path, Source(str(path)), Source(f"file://{path}")):
        with pytest.raises(DataError, match=re.escape(message.format(place))) as raised:
            list(read_line_blocks(place))
        assert str(raised.value).startswith(f"{place}: this is ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a",
        b"\xef\xbb\xbfa,b\n",
        b"a\x00b,c\n",
        b"\x00",
        TEXT,
        b"PAR1,ORC\n",
        b"BZh,x\n",
        "é,ü\n".encode(),
    ],
)
def test_text_is_text(tmp_path, text):
    (tmp_path / "x.csv").write_bytes(text)
    lines = [line for block in read_line_blocks(tmp_path / "x.csv") for line in block.text.to_pylist()]
    assert lines == text.decode("utf-8-sig").splitlines()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [("x.csv.gz", TEXT, "not compressed"), ("x.csv.gz", bz2.compress(TEXT), "bzip2 data"),
     ("x.csv.bz2", zipped(), "a zip archive"),
     ("x.csv.xz", GZIPPED, "gzip data")],
)  # fmt: skip
def test_a_name_that_promises_another_compression(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"its name ends with \.\w+, but it is {what}; rename it"):
        list(read_line_blocks(Source(str(tmp_path / name))))


def test_a_folder_where_a_file_is_expected(folder):
    (folder / "events.parquet").mkdir()
    for name in ("_SUCCESS", "part-0.parquet"):
        (folder / "events.parquet" / name).write_bytes(b"")
    advice = "is a folder; name the files in it, for example "
    for pattern, base in (("events.parquet", folder), ("events.parquet/", f"file://{folder}")):
        with pytest.raises(
            DataError, match=f"^files={pattern}: {advice}{re.escape('events.parquet/*.parquet')}$"
        ):
            found(pattern, base)
    with pytest.raises(DataError, match=re.escape(f"files=ev*: {advice}ev*/*.parquet")):
        found("ev*", folder)
    with pytest.raises(DataError, match=r"dataset\.raw=.*a1\.csv is a file; name the folder"):
        found("x.csv", folder / "a1.csv")
