"""A small bookshop, and settings that describe its files."""

from pathlib import Path

import pytest

from pipeline.settings import DatasetSettings

BOOKS = "isbn,name,genres,writer,year\n1,Low Tide,Crime|Drama,Ann Lee,1999\n2,Moth Season,Poetry,,2001\n"
LOANS = "reader,isbn,stars,at\na,1,5,880000001\nb,1,3,880000002\na,2,4,880000003\n"


@pytest.fixture
def shop(tmp_path) -> Path:
    (tmp_path / "books.csv").write_text(BOOKS)
    (tmp_path / "loans.csv").write_text(LOANS)
    return tmp_path


@pytest.fixture
def bookshop():
    """Builds settings; `items`, `interactions` and other keys change what stands here."""

    def build(raw, items=(), interactions=(), users=None, k_core=1, **changes) -> DatasetSettings:
        columns = {"id": "isbn", "title": "name", "attributes": {"author": "writer", "year": "year"}}
        categories = {"column": "genres", "separator": "|"}
        events = {"user": "reader", "item": "isbn", "rating": "stars", "timestamp": "at"}
        values = {
            "name": "bookshop",
            "reader": "tabular",
            "raw": str(raw),
            "max_bad_fraction": 0.9,
            "min_rating": 1,
            "max_rating": 5,
            "item_word": "book",
            "tabular": {
                "items": {"files": "books.csv", "categories": categories, **columns, **dict(items)},
                "interactions": {"files": "loans.csv", **events, **dict(interactions)},
                "users": users,
                "k_core": k_core,
            },
            "item_groups": {"groups": {}},
            "user_groups": {"num_groups": 2, "num_factors": 2},
        }
        return DatasetSettings.model_validate(values | changes)

    return build
