"""What a report is made of: neither Markdown nor HTML, and both are written from it."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.report.figures import Sample, Verdict

ChartName = Literal[
    "tokens_per_sec", "num_running", "price", "drafter_ms", "sources", "lengths", "nights", "nights_speed"
]


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    is_number: bool = True


@dataclass(frozen=True)
class DataTable:
    """A table of texts, a list for each row."""

    caption: str
    columns: list[Column]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture, and the same figures as a short table for those who do not see it."""

    name: ChartName
    title: str
    description: str
    table: DataTable


@dataclass(frozen=True)
class Charts:
    """Pictures that belong side by side."""

    charts: list[Chart]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class SampleText:
    """A text that the model wrote."""

    sample: Sample


Block = Tile | DataTable | Charts | Text | SampleText


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """The report."""

    title: str
    subtitle: str
    verdict: Verdict
    tiles: list[Tile]
    sections: list[Section]


def table(
    caption: str,
    columns: list[str],
    rows: list[list[str]],
    num_words: int = 1,
    num_last_words: int = 0,
    note: str = "",
) -> DataTable:
    """A table whose first `num_words` and last `num_last_words` columns hold words, the others numbers."""
    last = len(columns) - num_last_words
    return DataTable(
        caption, [Column(name, num_words <= n < last) for n, name in enumerate(columns)], rows, note
    )
