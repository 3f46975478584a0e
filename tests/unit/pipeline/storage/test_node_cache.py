"""Copies of what lies in a store, here fsspec's store in memory; tests of faults use a real S3 server."""

import os
from pathlib import Path

import pytest

from pipeline.errors import CorruptPartError, StorageError
from pipeline.storage import files
from pipeline.storage.files import remove_folder, write_json, write_text
from pipeline.storage.location import cache_folder, data_path, is_remote, missing_store
from pipeline.storage.node_cache import NUM_KEPT, appendable, built, fetched, fetched_anew


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LASER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store():
    folder = data_path("memory://bucket/data")
    yield folder
    remove_folder(folder)


def whole(folder):
    if (folder / "header").read_text() != "whole":
        raise CorruptPartError("not whole")


def test_local_places_are_used_as_they_are(tmp_path):
    assert fetched(tmp_path, whole) == tmp_path
    with appendable(tmp_path / "log") as log:
        assert log == tmp_path / "log"
    assert data_path(f"file://{tmp_path}") == tmp_path and not is_remote(tmp_path)
    assert missing_store(str(tmp_path)) is None and "Protocol not known" in missing_store("nosuch://a/b")


def test_a_folder_is_copied_once_and_only_a_whole_copy_gets_its_name(store, cache):
    folder = store / "v1"
    write_text("half", folder / "header")
    write_text("tokens", folder / "user" / "drama.tokens")
    with pytest.raises(CorruptPartError):
        fetched(folder, whole)
    assert not [path for path in cache.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    write_text("whole", folder / "header")
    copy = fetched(folder, whole)
    assert (copy / "user" / "drama.tokens").read_text() == "tokens"
    remove_folder(folder)
    assert fetched(folder, whole) == copy  # without asking the store again


def test_a_copy_that_is_not_whole_is_replaced_once_by_what_the_store_has(store, cache):
    folder = store / "v1"
    write_text("whole", folder / "header")
    write_text("tokens", folder / "user" / "drama.tokens")
    copy = fetched(folder, whole)
    (copy / "user" / "drama.tokens").unlink()
    (copy / "header").write_text("ha")
    assert fetched(folder, whole) == copy
    assert (copy / "user" / "drama.tokens").read_text() == "tokens"

    (copy / "header").write_text("ha")
    write_text("half", folder / "header")
    with pytest.raises(CorruptPartError):
        fetched(folder, whole)
    assert not copy.exists() and not list(cache.rglob(".tmp-*"))


def test_a_copy_that_cannot_be_replaced_stays(store, monkeypatch):
    folder = store / "v1"
    write_text("whole", folder / "header")
    copy = fetched(folder, whole)

    def fail(*_):
        raise ConnectionError("planted")

    monkeypatch.setattr(type(folder.fs), "get_file", fail)
    with pytest.raises(ConnectionError):
        fetched_anew(folder, whole)
    assert fetched(folder, whole) == copy


def test_what_the_store_holds_now_is_read_whatever_the_copy_holds(store):
    folder = store / "v1"
    write_text("whole", folder / "header")
    copy = fetched(folder, whole)
    write_text("half", folder / "header")
    assert fetched(folder, whole) == copy
    with pytest.raises(CorruptPartError):
        fetched_anew(folder, whole)
    assert not copy.exists()
    write_text("whole", folder / "header")
    assert fetched_anew(folder, whole) == copy and copy.exists()


def test_a_copy_is_on_the_disk_before_it_gets_its_name(store, monkeypatch):
    flushed = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
    )
    folder = store / "v1"
    write_text("whole", folder / "header")
    write_text("tokens", folder / "user" / "drama.tokens")
    flushed.clear()
    parent = fetched(folder, whole).parent / ".tmp-v1"
    expected = [parent, parent / "header", parent / "user", parent / "user" / "drama.tokens"]
    assert sorted(flushed) == expected


def test_old_copies_make_room(store):
    for number in range(NUM_KEPT + 2):
        write_text("whole", store / f"v{number}" / "header")
        copy = fetched(store / f"v{number}", whole)
        os.utime(copy, (number, number))
    kept = sorted(path.name for path in copy.parent.iterdir() if not path.name.startswith("."))
    assert kept == [f"v{number}" for number in range(2, NUM_KEPT + 2)]


def test_a_built_folder_arrives_with_its_header_or_not_at_all(store):
    with pytest.raises(ValueError, match="planted"), built(store / "v1", "header") as root:
        (root / ".tmp-v1").mkdir(parents=True)
        raise ValueError("planted")
    assert not (store / "v1").exists()
    with built(store / "v1", "header") as root:
        (root / "v1" / "user").mkdir(parents=True)
        (root / "v1" / "user" / "tokens").write_text("1")
        (root / "v1" / "header").write_text("whole")
    assert fetched(store / "v1", whole).name == "v1"
    assert not list(cache_folder().glob("build-*"))


def test_lines_are_appended_to_what_the_store_has(store):
    write_text("first\n", store / "log")
    with appendable(store / "log") as log, log.open("a") as file:
        file.write("second\n")
    assert (store / "log").read_text() == "first\nsecond\n"


def test_an_object_is_replaced_as_a_whole_or_stays(store, monkeypatch):
    monkeypatch.setattr(files, "UPLOAD_PAUSES_SEC", ())
    write_json({"a": 1}, store / "manifest.json")
    with pytest.raises(TypeError):
        write_text(None, store / "manifest.json")
    assert (store / "manifest.json").read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(StorageError, match=r"^memory://bucket/data/manifest.json/x: cannot be written"):
        write_text("x", store / "manifest.json" / "x")
