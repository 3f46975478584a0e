import errno

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.spool import RowReader, spooled

SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=False), pa.field("word", pa.string())])


def table_of(numbers) -> pa.Table:
    return pa.table([list(numbers), [f"word {n}" for n in numbers]], schema=SCHEMA)


def test_rows_come_back_from_a_file_without_a_name(tmp_path):
    folder = tmp_path / "not" / "there"
    rows = spooled((table_of(range(n, n + 10)) for n in range(0, 100, 10)), SCHEMA, folder)
    assert rows.equals(table_of(range(100))) and rows.schema.equals(SCHEMA, check_metadata=True)
    assert list(folder.iterdir()) == []


def test_rows_are_mapped_not_held(tmp_path):
    before = pa.total_allocated_bytes()
    rows = spooled((table_of(range(50_000)) for _ in range(4)), SCHEMA, tmp_path)
    assert rows.nbytes > 4_000_000
    assert pa.total_allocated_bytes() - before < 10_000


def test_no_rows_at_all(tmp_path):
    assert spooled([], SCHEMA, tmp_path).equals(SCHEMA.empty_table())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    def tables():
        yield table_of(range(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=f"{tmp_path}: no space left on device"):
        spooled(tables(), SCHEMA, tmp_path)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=8), st.data())
def test_any_rows_are_read_in_any_order(sizes, data):
    num_rows = sum(sizes)
    ends = np.cumsum(sizes, dtype=int).tolist()
    chunks = [table_of(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    table = pa.concat_tables([SCHEMA.empty_table(), *chunks])
    wanted = data.draw(st.lists(st.integers(0, num_rows - 1), max_size=12) if num_rows else st.just([]))
    found = RowReader(table).read(np.array(wanted, dtype=np.int64))
    assert found["number"].to_pylist() == wanted and found["word"].to_pylist() == [
        f"word {n}" for n in wanted
    ]
