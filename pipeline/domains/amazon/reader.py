"""Amazon reviews and metadata as domain tables.

The three published layouts (McAuley's 2014 and 2018 sets, Amazon Reviews'23 of Hou et al.) are JSON lines
under different names; the metadata of 2014 is written in Python's notation, and that of 2014 and 2018 has
HTML's entities in its texts. Only the columns that are used are kept while the files stream by, so review
texts cost no memory: about 60 bytes an interaction. Items outside the k-core leave nothing but their ids.
"""

import html
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.domains.raw.lines import read_line_blocks
from pipeline.domains.raw.records import parse_literal
from pipeline.domains.raw.sources import Source, find_sources
from pipeline.domains.tables import DomainTables
from pipeline.domains.tabular.reader import read_tables
from pipeline.errors import ConfigError, DataError
from pipeline.settings import (
    AmazonSettings,
    DatasetSettings,
    InteractionsTableSettings,
    ItemsTableSettings,
    TabularSettings,
    TimestampColumnSettings,
)


@dataclass(frozen=True)
class Layout:
    """The names that one year's files give to what is used; `review_key` tells it from the earlier ones."""

    year: int
    review_key: str
    user: str
    item: str
    rating: str
    timestamp: str
    unit: Literal["s", "ms"]
    item_id: str
    categories: str
    attributes: dict[str, str]


LAYOUTS = {
    2023: Layout(
        2023, "parent_asin", "user_id", "parent_asin", "rating", "timestamp", "ms", "parent_asin",
        "categories",
        {"sold by": "store", "price": "price", "features": "features"},
    ),
    2018: Layout(
        2018, "verified", "reviewerID", "asin", "overall", "unixReviewTime", "s", "asin", "category",
        {"brand": "brand", "price": "price", "features": "feature"},
    ),
    2014: Layout(
        2014, "reviewerID", "reviewerID", "asin", "overall", "unixReviewTime", "s", "asin", "categories",
        {"brand": "brand", "price": "price"},
    ),
}  # fmt: skip
SHOWN = frozenset({"title", "category", "categories", "brand", "store", "feature", "features"})


def read_amazon(settings: DatasetSettings) -> DomainTables:
    """Read the files that `settings.amazon` names; relative paths are below `settings.raw`."""
    amazon = settings.amazon
    if amazon is None:
        raise ConfigError("dataset.amazon: missing with dataset.reader=amazon")
    layout = _layout(amazon, settings.raw)
    tables = TabularSettings(
        items=ItemsTableSettings(
            files=amazon.metadata, format="jsonl", id=layout.item_id, title="title",
            categories=layout.categories, attributes=layout.attributes, duplicates="error",
        ),
        interactions=InteractionsTableSettings(
            files=amazon.reviews, format="jsonl", user=layout.user, item=layout.item, rating=layout.rating,
            timestamp=TimestampColumnSettings(column=layout.timestamp, unit=layout.unit),
        ),
        k_core=amazon.k_core,
    )  # fmt: skip
    return read_tables(settings, tables, "dataset.amazon", parse_record, may_lack_keys=True)


def parse_record(line: str) -> dict[str, Any] | None:
    """The object of a line, HTML's entities in what prompts show replaced by their characters."""
    record = parse_literal(line)
    if record is not None and "&" in line:
        for key in SHOWN & record.keys():
            record[key] = _unescaped(record[key])
    return record


def _unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescaped(member) for member in value]
    return html.unescape(value) if isinstance(value, str) else value


def _layout(amazon: AmazonSettings, base: str | None) -> Layout:
    if amazon.layout != "auto":
        return LAYOUTS[amazon.layout]
    source = find_sources(amazon.reviews, base, "dataset.amazon.reviews")[0]
    keys = _first_keys(source)
    for layout in LAYOUTS.values():
        if {layout.review_key, layout.user, layout.rating} <= keys:
            return layout
    raise DataError(
        f"{source}: its first review has no layout's keys; set dataset.amazon.layout to 2014, 2018 or 2023"
    )


def _first_keys(source: Source) -> set[str]:
    """The keys of the first line that is an object; none if the first block has no such line."""
    for block in read_line_blocks(source, block_bytes=1 << 20):
        for line in block.text.to_pylist():
            if line is not None and (record := parse_literal(line)) is not None:
                return set(record)
        break
    return set()
