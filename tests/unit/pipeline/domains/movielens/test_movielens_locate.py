import shutil
from importlib import metadata

import fsspec
import pytest

from pipeline.domains import read_domain
from pipeline.domains.movielens import locate
from pipeline.errors import DataError


def test_the_embedded_dataset_is_complete(dataset):
    tables = read_domain(dataset(None, max_bad_fraction=0.0))
    assert (tables.users.num_rows, tables.items.num_rows, tables.interactions.num_rows) == (
        943,
        1682,
        100_000,
    )
    assert tables.failed.num_rows == 0


def test_a_missing_package_says_how_to_get_it(dataset, monkeypatch):
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(locate.metadata, "distribution", absent)
    with pytest.raises(DataError, match=r"recbole.*not installed: pip install --no-deps recbole==") as raised:
        read_domain(dataset(None))
    assert "\n" not in str(raised.value)


def test_the_parent_of_the_dataset_is_accepted(raw_folder, dataset):
    assert read_domain(dataset(raw_folder("csv").parent)).interactions.num_rows == 3


def test_the_folder_may_lie_in_a_store(raw_folder, dataset):
    """`memory://` is the store that fsspec has without a server; S3 is tested in tests/integration."""
    folder = raw_folder("100k")
    store = fsspec.filesystem("memory")
    for file in folder.iterdir():
        store.pipe_file(f"/raw/ml-100k/{file.name}", file.read_bytes())
    found, expected = read_domain(dataset("memory://raw")), read_domain(dataset(folder))
    assert found.interactions.equals(expected.interactions) and found.items.equals(expected.items)
    with pytest.raises(DataError, match=r"dataset\.raw=memory://nowhere: there is no such folder"):
        read_domain(dataset("memory://nowhere"))


def test_two_datasets_below_one_folder_are_ambiguous(raw_folder, dataset):
    parent = raw_folder("csv").parent
    raw_folder("1m")
    with pytest.raises(DataError, match=r"more than one dataset: ml-1m in .*, ml-latest") as raised:
        read_domain(dataset(parent))
    assert "name one folder in dataset.raw" in str(raised.value)


def test_two_forms_in_one_folder_are_ambiguous(raw_folder, dataset):
    folder = raw_folder("csv")
    shutil.copytree(raw_folder("10m"), folder, dirs_exist_ok=True)
    with pytest.raises(DataError, match=r"more than one dataset: ml-10M100K in .*ml-latest"):
        read_domain(dataset(folder))


def test_a_folder_without_a_form_says_what_was_looked_for(tmp_path, dataset):
    with pytest.raises(DataError, match=r"no form of MovieLens found; looked for ml-100k \(u\.data, u\.item"):
        read_domain(dataset(tmp_path))


def test_an_incomplete_form_says_what_is_missing(raw_folder, dataset):
    folder = raw_folder("100k")
    (folder / "u.item").unlink()
    with pytest.raises(DataError, match=r"for ml-100k this folder lacks u\.item$"):
        read_domain(dataset(folder))


def test_a_dataset_that_is_still_packed(raw_folder, dataset):
    folder = raw_folder("1m")
    (folder / "ratings.dat").rename(folder / "ratings.dat.gz")
    with pytest.raises(DataError, match=r"; unpack ratings\.dat\.gz first$"):
        read_domain(dataset(folder))


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path, dataset):
    with pytest.raises(DataError, match="there is no such folder"):
        read_domain(dataset(tmp_path / "nowhere"))
    (tmp_path / "ml.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="this is a file"):
        read_domain(dataset(tmp_path / "ml.zip"))
