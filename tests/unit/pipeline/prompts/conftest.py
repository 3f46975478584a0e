"""A small domain, the embedded model's tokenizer, and the prompt set of configs/knowledge."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from jobs.config import load_settings
from pipeline.domains.tables import DomainTables
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, INTERACTIONS_WITH_TEXT, ITEMS, USERS
from pipeline.settings import KnowledgeSettings, ModelSettings

SIMPLE_USER = (
    "Likes?\n{{ attributes.values() | join(',') }}\n"
    "{% for item, rating in history %}- {{ item.name }}: {{ rating }}\n{% endfor %}"
)


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="session")
def kar() -> KnowledgeSettings:
    return load_settings("generate", ["knowledge=kar", "model.prompt_form=large"]).knowledge


@pytest.fixture
def make_knowledge():
    """A prompt set with templates that a test can predict."""

    def make(user=SIMPLE_USER, item="What is {{ item.name }}?", max_tokens=16, max_history=100, **parts):
        def settings(template):
            return {"template": template, "max_tokens": max_tokens, "system": parts.get("system")}

        return KnowledgeSettings.model_validate(
            {"name": "test", "max_history": max_history, "user": settings(user), "item": settings(item)}
        )

    return make


@pytest.fixture
def make_model():
    def make(max_model_len=2048, **fields):
        return ModelSettings(name="smollm2", path="/models/smollm2", max_model_len=max_model_len, **fields)

    return make


def at(day: int) -> datetime:
    """A day of January 2000."""
    return datetime(2000, 1, day, tzinfo=UTC)


@pytest.fixture
def make_tables():
    """Domain tables from plain rows: users {id: attributes}, items {id: title or row}, ratings."""

    def make(users=None, items=None, ratings=()):
        """`ratings`: (user, item, rating, day of January 2000 or datetime), perhaps a text."""
        item_rows = [_item_row(item_id, value) for item_id, value in (items or {}).items()]
        user_rows = [
            {"user_id": user_id, "attributes": list(attributes.items())}
            for user_id, attributes in (users or {}).items()
        ]
        interactions = [
            {
                "user_id": user,
                "item_id": item,
                "rating": rating,
                "timestamp": at(t) if isinstance(t, int) else t,
                "text": text[0] if text else None,
            }
            for user, item, rating, t, *text in ratings
        ]
        has_texts = any(len(row) > len(INTERACTIONS) for row in ratings)
        return DomainTables(
            pa.Table.from_pylist(user_rows, USERS),
            pa.Table.from_pylist(item_rows, ITEMS),
            pa.Table.from_pylist(interactions, INTERACTIONS_WITH_TEXT if has_texts else INTERACTIONS),
            FAILED.empty_table(),
        )

    return make


def _item_row(item_id, value):
    row = {"title": value} if isinstance(value, str) else value
    attributes = list(row.get("attributes", {}).items())
    return {
        "item_id": item_id,
        "title": row["title"],
        "categories": row.get("categories", []),
        "attributes": attributes,
    }


@pytest.fixture
def groups_of():
    """Every entity of the tables, in one group for each kind."""

    def make(tables: DomainTables) -> pa.Table:
        users, items = tables.users["user_id"].to_pylist(), tables.items["item_id"].to_pylist()
        kinds = ["user"] * len(users) + ["item"] * len(items)
        groups = ["u0"] * len(users) + ["drama"] * len(items)
        return pa.table({"entity_id": users + items, "kind": kinds, "group": groups}, GROUPS)

    return make
