"""Datastore versions that lie in an object store: copied once per machine, checked, then memory-mapped."""

from pathlib import Path

from drafters.datastore import Datastore, DatastoreError, StoreHeader
from drafters.datastore.format import HEADER
from pipeline.errors import CorruptPartError
from pipeline.storage.node_cache import fetched


def local_pools(folder: Path) -> Path:
    """A local folder with the datastore version at `folder`; `CorruptPartError` if a copy is not whole."""
    return fetched(folder, _verify)


def has_pools(folder: Path) -> bool:
    """Whether the datastore version at `folder` is complete: its header is stored last."""
    return (folder / HEADER).exists()


def _verify(folder: Path) -> None:
    try:
        Datastore(folder, StoreHeader.read(folder)).verify()
    except (DatastoreError, OSError) as error:
        raise CorruptPartError(str(error)) from error
