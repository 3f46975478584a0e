"""Values of JSON records as text."""

from typing import Any

import numpy as np
import pyarrow as pa

LIST_SEPARATOR = "\x1f"  # the unit separator of ASCII
LARGEST_EXACT_FLOAT = 2.0**53
MAX_DEPTH = 100

_NOTHING = type(None)


def as_texts(values: list[Any]) -> tuple[pa.Array, np.ndarray]:
    """Each of `values` as text, null for None; and which are nested deeper than MAX_DEPTH, null too."""
    none_deep = np.zeros(len(values), dtype=bool)
    texts = _of_one_kind(values)
    if texts is not None:
        return texts, none_deep
    found: list[str | None] = []
    deep = []
    for place, value in enumerate(values):
        try:
            found.append(_as_text(value))
        except RecursionError:
            found.append(None)
            deep.append(place)
    none_deep[deep] = True
    return pa.array(found, pa.string()), none_deep


def _of_one_kind(values: list[Any]) -> pa.Array | None:
    """The texts of strings or of numbers at once; None if there is anything else."""
    kinds = set(map(type, values)) - {_NOTHING}
    try:
        if kinds <= {str}:
            return pa.array(values, pa.string())
        if kinds == {int}:
            return pa.array(values, pa.int64()).cast(pa.string())
    except (UnicodeEncodeError, OverflowError):
        return None
    if kinds <= {int, float}:
        texts = {value: _as_text(value) for value in set(values)}
        return pa.array([texts[value] for value in values], pa.string())
    return None


def _as_text(value: Any, depth: int = 0) -> str | None:
    """`value` as text; raises `RecursionError` if it is nested deeper than MAX_DEPTH."""
    if value is None:
        return None
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < LARGEST_EXACT_FLOAT else repr(value)
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, list | tuple | set):
        return LIST_SEPARATOR.join(text for member in value if (text := _as_text(member, depth + 1)))
    if isinstance(value, dict):
        pairs = ((key, _as_text(member, depth + 1)) for key, member in value.items())
        return encodable(", ".join(f"{key}: {text}" for key, text in pairs if text))
    return _as_number(value)


def _as_number(value: Any) -> str | None:
    try:
        return str(value)
    except ValueError:  # an integer of more digits than Python writes
        return None


def encodable(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which no file can hold; a pair becomes its character."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
