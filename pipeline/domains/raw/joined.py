"""Lines joined to records: a quoted value of CSV may span lines."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.raw.lines import MAX_LINE_BYTES, LineBlock
from pipeline.domains.raw.quotes import QUOTE, Quoting


def join_records(
    blocks: Iterable[LineBlock], quoting: Quoting, max_bytes: int = MAX_LINE_BYTES
) -> Iterator[LineBlock]:
    """Yield `blocks` with the lines that a quoted value spans as one, blank ones among them, joined by `\\n`.

    A record has the number of its first line. A quote that is not closed, or not closed well, within
    `max_bytes` leaves its line alone and unfinished, and the next line begins a record.
    """
    held: LineBlock | None = None
    for block in blocks:
        lines = block if held is None else _concat(held, block)
        spans, held_from = _spans(lines, quoting, max_bytes)
        held = None if held_from is None else _slice(lines, held_from, None)
        yield _joined(_slice(lines, 0, held_from), spans)
    if held is not None:
        yield _joined(held, _spans(held, quoting, max_bytes, is_last=True)[0])


def _spans(
    lines: LineBlock, quoting: Quoting, max_bytes: int, is_last: bool = False
) -> tuple[list[tuple[int, int]], int | None]:
    """The first and last lines of the records that have several, in order.

    And the line from which on more lines must be seen, if these are not the last ones.
    """
    text = _searchable(lines)
    quoted = np.flatnonzero(pc.match_substring(text, QUOTE))
    opening = quoted[~_mask(quoting.are_whole, text, quoted)]
    opening = opening[_mask(quoting.open_a_value, text, opening)]
    if not opening.size:
        return [], None
    ending = quoted[~_mask(quoting.keep_a_value_open, text, quoted)]
    ends_well = _mask(quoting.close_a_value, text, ending).tolist()
    starts, stops = _places(lines)
    spans: list[tuple[int, int]] = []
    num_taken = 0
    places = np.searchsorted(ending, opening, side="right")
    for first, place in zip(opening.tolist(), places.tolist(), strict=True):
        if first < num_taken:
            continue
        if place == len(ending):
            if not is_last and stops[-1] - starts[first] <= max_bytes:
                return spans, first
        elif ends_well[place] and stops[ending[place]] - starts[first] <= max_bytes:
            num_taken = int(ending[place]) + 1
            spans.append((first, num_taken - 1))
    return spans, None


def _searchable(lines: LineBlock) -> pa.Array:
    """The text of `lines`; of those that do not decode the bytes, so that their quotes are seen."""
    if not lines.text.null_count:
        return lines.text
    undecoded = lines.raw.filter(pc.is_null(lines.text)).to_pylist()
    shown = pa.array([line.rstrip(b"\r\n").decode("latin-1") for line in undecoded], pa.string())
    return pc.replace_with_mask(lines.text, pc.is_null(lines.text), shown)


def _mask(test: Callable[[pa.Array], pa.Array], text: pa.Array, places: np.ndarray) -> np.ndarray:
    return test(text.take(pa.array(places))).to_numpy(zero_copy_only=False)


def _places(lines: LineBlock) -> tuple[np.ndarray, np.ndarray]:
    """Where each line starts and stops, in bytes, blank lines counted as one."""
    num_bytes = np.asarray(pc.binary_length(lines.raw), dtype=np.int64)
    stops = np.cumsum(num_bytes) + np.asarray(lines.numbers) - np.arange(len(num_bytes))
    return stops - num_bytes, stops


def _joined(lines: LineBlock, spans: list[tuple[int, int]]) -> LineBlock:
    """`lines` with each of `spans` as one."""
    if not spans:
        return lines
    goes_on = np.zeros(len(lines.text), dtype=bool)
    for first, last in spans:
        goes_on[first:last] = True
    numbers = np.asarray(lines.numbers)
    num_newlines = np.where(goes_on, np.diff(numbers, append=0), 0)
    text = pc.binary_join_element_wise(lines.text, pc.binary_repeat("\n", pa.array(num_newlines)), "")
    starts = np.flatnonzero(~np.concatenate([[False], goes_on[:-1]]))
    offsets = pa.array(np.append(starts, len(text)).astype(np.int32))
    return LineBlock(
        lines.numbers.take(pa.array(starts)),
        pc.binary_join(pa.ListArray.from_arrays(offsets, text), ""),
        pc.binary_join(pa.ListArray.from_arrays(offsets, lines.raw), b""),
    )


def _concat(first: LineBlock, second: LineBlock) -> LineBlock:
    pairs = [(first.numbers, second.numbers), (first.text, second.text), (first.raw, second.raw)]
    return LineBlock(*(pa.concat_arrays(pair) for pair in pairs))


def _slice(lines: LineBlock, start: int, stop: int | None) -> LineBlock:
    return LineBlock(lines.numbers[start:stop], lines.text[start:stop], lines.raw[start:stop])
