"""More text than the 2 GiB that an array of `pa.string()` holds. Chunks share memory, to cost little."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.domains import DomainTables, read_domain
from pipeline.domains.tables import attribute_maps
from pipeline.domains.tabular.core import k_core
from pipeline.evaluate.features import _attributes, _categories
from pipeline.groups.items import group_items
from pipeline.prompts.cleaning import DataCleaner
from pipeline.prompts.subjects import ItemSubjects, cards_of
from pipeline.schemas import FAILED, INTERACTIONS, ITEMS, USERS, conform
from pipeline.settings import DatasetSettings, ItemGroupSettings

MIB = 1 << 20
ROWS_OF_A_CHUNK, NUM_CHUNKS = 64, 34
NUM_ITEMS = ROWS_OF_A_CHUNK * NUM_CHUNKS  # of a MiB each


@pytest.fixture(scope="module")
def items():
    texts = pa.array(["x" * MIB] * ROWS_OF_A_CHUNK)
    even = pa.array(["even" if row % 2 == 0 else "odd" for row in range(ROWS_OF_A_CHUNK)])
    maps = attribute_maps({"text": texts, "parity": even}, ROWS_OF_A_CHUNK)
    lists = pa.ListArray.from_arrays(pa.array(range(ROWS_OF_A_CHUNK + 1), pa.int32()), texts)
    columns = {
        "item_id": [f"i{number}" for number in range(NUM_ITEMS)],
        "title": pa.chunked_array([texts] * NUM_CHUNKS),
        "categories": pa.chunked_array([lists] * NUM_CHUNKS),
        "attributes": pa.chunked_array([maps] * NUM_CHUNKS),
    }
    return conform(pa.table(columns), ITEMS, "items", unique=("item_id",))


def test_the_k_core_of_items(items):
    pairs = [(user, item) for user in ("a", "b") for item in ("i3", "i2000")]
    events = [{"user_id": user, "item_id": item, "timestamp": 0} for user, item in pairs]
    users = pa.table({"user_id": ["a", "b", "c"], "attributes": attribute_maps({}, 3)}, schema=USERS)
    tables = DomainTables(
        users, items, pa.Table.from_pylist(events, schema=INTERACTIONS), FAILED.empty_table()
    )
    core = k_core(tables, 2, "dataset.tabular")
    assert (core.items["item_id"].to_pylist(), core.users["user_id"].to_pylist()) == (
        ["i3", "i2000"],
        ["a", "b"],
    )
    assert core.items["title"][1].as_py() == "x" * MIB


def test_cards_of_items(items):
    cleaner, rows = DataCleaner(frozenset()), np.array([2000, 3])
    cards = cards_of(items, rows, cleaner)
    assert [card.attributes["parity"] for card in cards] == ["even", "odd"]
    tables = DomainTables(USERS.empty_table(), items, INTERACTIONS.empty_table(), FAILED.empty_table())
    subjects = ItemSubjects(pa.array(["i2000", "i3"]), tables, {}, cleaner)
    assert [subjects.variables(row, int(subjects.sizes[row]))["item"] for row in (0, 1)] == cards


def test_groups_and_model_fields_of_items(items):
    groups = group_items(items, ItemGroupSettings(attribute="parity", groups={}, num_largest=2))
    assert groups["group"].to_pylist() == ["even", "odd"] * (NUM_ITEMS // 2)
    ids, events = pa.array(["i2000", "i3"]), np.array([0, 1, 1])
    fields = _attributes("item", items, ids, events, np.array([0, 1, 2]))
    assert fields["item_parity"].tolist() == [1, 2, 2] and fields["item_text"].tolist() == [1, 1, 1]
    assert _categories(items, ids)[:, 0].tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("users", [False, True])
def test_millions_of_descriptions_are_read(tmp_path, users):
    """4 GB of memory."""
    num_rows = 2_200_000
    ids = [f"i{number}" for number in range(num_rows)]
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array(["x" * 1000]))
    pq.write_table(pa.table({"id": ids, "about": texts}), tmp_path / "many.parquet")
    (tmp_path / "few.csv").write_text("id,about\n1,x\n")
    user, item = ("i7", "1") if users else ("1", "i7")
    (tmp_path / "events.csv").write_text(f"user,item\n{user},{item}\n")
    many = {"files": "many.parquet", "id": "id", "attributes": {"about": "about"}}
    few = {"files": "few.csv", "id": "id", "attributes": {"about": "about"}}
    tables = read_domain(DatasetSettings.model_validate({
        "name": "shop", "reader": "tabular", "raw": str(tmp_path), "max_bad_fraction": 0,
        "item_word": "thing", "min_rating": None, "max_rating": None, "item_groups": {"groups": {}},
        "user_groups": {"num_groups": 2, "num_factors": 2},
        "tabular": {
            "items": (few if users else many) | {"title": "id"}, "users": many if users else few,
            "interactions": {"files": "events.csv", "user": "user", "item": "item"},
        },
    }))  # fmt: skip
    entities = tables.users if users else tables.items
    assert entities.num_rows == num_rows and tables.failed.num_rows == 0
    assert entities["attributes"][num_rows - 1].as_py() == [("about", "x" * 1000)]
