"""Blocks of lines as tests compare them."""

from collections.abc import Iterable

from pipeline.domains.raw.lines import LineBlock


def numbered(blocks: Iterable[LineBlock]) -> list[tuple[int, str | None]]:
    """(number, text) of every line; each has its bytes too."""
    found: list[tuple[int, str | None]] = []
    for block in blocks:
        assert len(block.numbers) == len(block.text) == len(block.raw)
        found.extend(zip(block.numbers.to_pylist(), block.text.to_pylist(), strict=True))
    return found
