"""Which datastore version a run may draft from."""

import numpy as np
import pytest

from drafters.datastore import DatastoreBuilder, Document, StoreHeader
from pipeline.errors import CorruptPartError
from pipeline.pools import read_calibration, usable_version
from pipeline.storage.layout import DatasetLayout


@pytest.fixture
def layout(tmp_path):
    """A datastore of one text, written with tokenizer `a`, in force."""
    layout = DatasetLayout(tmp_path / "movielens")
    layout.datastore.mkdir(parents=True)
    builder = DatastoreBuilder(layout.datastore, StoreHeader("v1", 100, "a" * 64, source="run"), None)
    builder.add("item", "drama", [Document.of("1", np.arange(8))])
    builder.finish(None)
    layout.current_datastore.write_text("v1\n")
    return layout


def test_pools_are_used_by_the_tokenizer_that_wrote_them(layout):
    assert usable_version(layout, "a" * 64, 100) == "v1"


@pytest.mark.parametrize(("tokenizer", "vocab_size"), [("b" * 64, 100), ("a" * 64, 101)])
def test_pools_of_another_tokenizer_are_refused_by_name(layout, caplog, tokenizer, vocab_size):
    assert usable_version(layout, tokenizer, vocab_size) is None
    assert f"{layout.datastore / 'v1'}" in caplog.text


def test_without_pools_there_is_no_version(tmp_path):
    assert usable_version(DatasetLayout(tmp_path), "a" * 64, 100) is None


def test_an_altered_file_is_refused_by_name(layout, caplog):
    (tokens,) = (layout.datastore / "v1").glob("item/drama/*.tokens")
    content = bytearray(tokens.read_bytes())
    content[0] ^= 1
    tokens.chmod(0o644)
    tokens.write_bytes(content)
    assert usable_version(layout, "a" * 64, 100) is None
    assert str(tokens) in caplog.text


def test_an_unreadable_calibration_is_named(tmp_path):
    path = tmp_path / "calibration.json"
    assert read_calibration(path) is None
    path.write_text('{"weights": [0.5]}')
    assert read_calibration(path) == {"weights": [0.5]}
    path.write_text('{"weights": [0.')
    with pytest.raises(CorruptPartError, match=r"calibration\.json: unreadable"):
        read_calibration(path)


def test_pools_with_a_truncated_calibration_are_not_used(layout, caplog):
    builder = DatastoreBuilder(layout.datastore, StoreHeader("v2", 100, "a" * 64, source="run"), None)
    path = builder.finish({"weights": [0.5]}) / "calibration.json"
    layout.current_datastore.write_text("v2\n")
    assert usable_version(layout, "a" * 64, 100) == "v2"
    path.write_text(path.read_text()[:-4])
    assert usable_version(layout, "a" * 64, 100) is None
    assert str(path) in caplog.text
