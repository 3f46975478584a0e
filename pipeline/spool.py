"""Tables that are larger than memory: written to disk batch by batch, mapped, and read row by row."""

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.storage.files import naming_full_storage


def spooled(tables: Iterable[pa.Table], schema: pa.Schema, folder: Path | None = None) -> pa.Table:
    """The rows of `tables`, all of `schema`, memory-mapped from a file on the disk of `folder`.

    The file has no name: it is gone with the last reference to its rows, and when the process is killed.
    `folder` None is the system's folder for temporary files. Raises `StorageError` if the disk is full.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    place = folder or Path(tempfile.gettempdir())
    with naming_full_storage(place), tempfile.TemporaryFile(dir=place) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for table in tables:
                writer.write_table(table)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


class RowReader:
    """Copies rows of `table`, in any order, and nothing else of it.

    `pyarrow.Table.take` joins the chunks of each column first: that copies a mapped table into memory, and
    fails where a column holds more than 2 GiB of text.
    """

    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def read(self, rows: np.ndarray) -> pa.Table:
        """The rows of these numbers, in their order."""
        if not len(rows):
            return self._schema.empty_table()
        ascending = np.argsort(rows)
        wanted = rows[ascending]
        holders = np.searchsorted(self._starts, wanted, side="right") - 1
        cuts = np.flatnonzero(np.diff(holders, prepend=-1))
        parts = [
            self._batches[holders[first]].take(pa.array(wanted[first:last] - self._starts[holders[first]]))
            for first, last in zip(cuts, [*cuts[1:], len(wanted)], strict=True)
        ]
        places = np.empty(len(rows), dtype=np.int64)
        places[ascending] = np.arange(len(rows))
        return pa.Table.from_batches(parts).combine_chunks().take(pa.array(places))
