import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.groups import group_items
from pipeline.schemas import GROUPS, ITEMS
from pipeline.settings import ItemGroupSettings


def items(**categories):
    rows = [
        {"item_id": item, "title": item, "categories": names, "attributes": []}
        for item, names in categories.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


SETTINGS = ItemGroupSettings(
    groups={"Children's": ["Children's", "Children"], "Sci-Fi": ["Sci-Fi"], "drama": ["Drama", "Children"]}
)


def test_the_first_group_in_the_order_of_the_config_wins():
    table = items(
        a=["Drama", "Sci-Fi"], b=["Sci-Fi", "Children"], c=["Drama"], d=["Horror"], e=[], f=["sci-fi"]
    )
    groups = group_items(table, SETTINGS)
    assert groups.schema.equals(GROUPS)
    assert dict(zip(groups["entity_id"].to_pylist(), groups["group"].to_pylist(), strict=True)) == {
        "a": "sci-fi",
        "b": "children-s",
        "c": "drama",
        "d": "other",
        "e": "other",
        "f": "sci-fi",
    }
    assert set(groups["kind"].to_pylist()) == {"item"}


def test_no_items_no_categories_and_no_groups():
    assert group_items(ITEMS.empty_table(), SETTINGS).num_rows == 0
    assert group_items(items(a=[]), SETTINGS)["group"].to_pylist() == ["other"]
    assert group_items(items(a=["Drama"]), ItemGroupSettings(groups={}))["group"].to_pylist() == ["other"]


def test_tables_of_several_chunks():
    table = pa.concat_tables([items(a=["Drama"]), items(b=[], c=["Sci-Fi"])])
    assert group_items(table, SETTINGS)["group"].to_pylist() == ["drama", "other", "sci-fi"]


def test_groups_whose_folders_would_be_the_same_are_refused():
    with pytest.raises(ConfigError, match="groups 'Sci-Fi' and 'Sci Fi' would both be named 'sci-fi'"):
        group_items(items(a=[]), ItemGroupSettings(groups={"Sci-Fi": ["x"], "Sci Fi": ["y"]}))


def test_the_default_group_may_be_one_of_the_groups():
    settings = ItemGroupSettings(groups={"drama": ["Drama"]}, default_group="drama")
    assert group_items(items(a=["Drama"], b=[]), settings)["group"].to_pylist() == ["drama", "drama"]


def test_repeated_items_are_refused():
    with pytest.raises(DataError, match="item groups"):
        group_items(pa.concat_tables([items(a=[]), items(a=[])]), SETTINGS)
