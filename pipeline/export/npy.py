"""NumPy files written a batch at a time: their size is known before their content."""

from collections.abc import Iterable
from typing import IO

import numpy as np
import numpy.typing as npt


def write_npy(
    file: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike, batches: Iterable[npt.NDArray[np.generic]]
) -> None:
    """Write an array of `shape` and `dtype` in .npy format; `batches` are its rows in order.

    Raises `ValueError` if they are not as many as `shape` says.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_2_0(file, header)
    num_rows = 0
    for batch in batches:
        rows = np.ascontiguousarray(batch, dtype=dtype)
        num_rows += len(rows)
        file.write(rows.tobytes())
    if num_rows != shape[0]:
        raise ValueError(f"{num_rows} rows written, {shape[0]} announced")
