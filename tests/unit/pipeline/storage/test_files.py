import errno
import os
import subprocess
import sys

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import StorageError, UploadError
from pipeline.storage import files
from pipeline.storage.files import replaced_atomically, write_text
from pipeline.storage.location import data_path

LIMITED = """
import resource, sys
from pathlib import Path
from pipeline.errors import StorageError
from pipeline.storage.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_text("x" * 100_000, Path(sys.argv[1]))
except StorageError as error:
    sys.stdout.write(str(error))
"""


def test_a_file_that_cannot_be_written_whole_is_named_and_the_old_one_stays(tmp_path):
    path = tmp_path / "manifest.json"
    write_text("old", path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: file too large; what is finished is kept")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_another_error_passes_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ValueError, match="planted"), replaced_atomically(path) as temporary:
        temporary.write_text("half")
        raise ValueError("planted")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_became_read_only_is_named(tmp_path):
    with (
        pytest.raises(
            StorageError, match=r"a\.txt: read-only file system; .* make it writable and run"
        ) as error,
        replaced_atomically(tmp_path / "a.txt"),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert not isinstance(error.value, UploadError)


@pytest.fixture
def uploads(monkeypatch):
    """A store in which the given errors meet the first uploads; counts the uploads, and notes the pauses."""
    seen = {"tries": 0, "pauses": []}
    put = MemoryFileSystem.put_file

    def fail_with(*errors):
        def put_file(self, *arguments, **options):
            seen["tries"] += 1
            if seen["tries"] <= len(errors):
                raise errors[seen["tries"] - 1]
            put(self, *arguments, **options)

        monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
        return seen

    monkeypatch.setattr(files.time, "sleep", seen["pauses"].append)
    return fail_with


def test_an_upload_that_fails_is_tried_again(uploads):
    seen = uploads(OSError("SlowDown"), ConnectionError("reset"))
    write_text("whole", data_path("memory://bucket/a.txt"))
    assert data_path("memory://bucket/a.txt").read_text() == "whole"
    assert seen["pauses"] == list(files.UPLOAD_PAUSES_SEC[:2])


def test_an_upload_is_given_up_after_some_tries_and_at_once_if_it_is_refused(uploads):
    seen = uploads(*[OSError("SlowDown")] * 9)
    with pytest.raises(UploadError, match=r"^memory://bucket/b\.txt: cannot be written: SlowDown$"):
        write_text("x", data_path("memory://bucket/b.txt"))
    assert seen["tries"] == len(files.UPLOAD_PAUSES_SEC) + 1
    refused = uploads(*[PermissionError("AccessDenied")] * 9)
    refused["tries"] = 0
    with pytest.raises(UploadError, match="AccessDenied"):
        write_text("x", data_path("memory://bucket/b.txt"))
    assert refused["tries"] == 1


def test_a_full_disk_of_one_machine_is_not_the_store(uploads):
    with (
        pytest.raises(
            UploadError, match=r"^memory://bucket/c\.txt: cannot be written: no space left on device on"
        ),
        replaced_atomically(data_path("memory://bucket/c.txt")),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
