"""Datastore versions that lie in an object store: copied once per machine, checked, then memory-mapped."""

from pathlib import Path

from drafters.datastore import Datastore, DatastoreError, StoreHeader
from drafters.datastore.format import HEADER
from pipeline.errors import CorruptPartError
from pipeline.storage.location import is_remote
from pipeline.storage.node_cache import fetched, fetched_anew


def local_pools(folder: Path) -> Path:
    """A local folder with the datastore version at `folder`; `CorruptPartError` if that is not whole.

    Checksums are compared when it is copied. Of a copy that is there already the sizes of the files are:
    each worker asks for it, and a version may have many gigabytes.
    """
    return fetched(folder, _verify, recheck=_open)


def verified_pools(folder: Path) -> Path:
    """Like `local_pools`, but every file of what it returns was compared with its checksum just now."""
    if is_remote(folder):
        return fetched(folder, _verify)
    _verify(folder)
    return folder


def verify_stored(folder: Path) -> None:
    """Compare every file of the datastore version with its checksum; `CorruptPartError` names what is wrong.

    From an object store all is read again, and becomes this machine's copy: an earlier one would only
    show what lay in the store when it was made. Copies of other machines are not looked at.
    """
    if is_remote(folder):
        fetched_anew(folder, _verify)
    else:
        _verify(folder)


def has_pools(folder: Path) -> bool:
    """Whether the datastore version at `folder` is complete: its header is stored last."""
    return (folder / HEADER).exists()


def _open(folder: Path) -> Datastore:
    try:
        return Datastore(folder, StoreHeader.read(folder))
    except (DatastoreError, OSError) as error:
        raise CorruptPartError(str(error)) from error


def _verify(folder: Path) -> None:
    try:
        _open(folder).verify()
    except (DatastoreError, OSError) as error:
        raise CorruptPartError(str(error)) from error
