import subprocess
import sys

import pytest

from pipeline.storage.files import replaced_atomically, write_text

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
