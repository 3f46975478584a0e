"""The groups of all entities of a domain."""

import pyarrow as pa

from pipeline.domains.tables import DomainTables
from pipeline.groups.items import group_items
from pipeline.groups.users import group_users
from pipeline.schemas import GROUPS, conform
from pipeline.settings import DatasetSettings


def group_entities(tables: DomainTables, dataset: DatasetSettings) -> pa.Table:
    """One GROUPS row for each item and each user of `tables`, items first."""
    items = group_items(tables.items, dataset.item_groups)
    users = group_users(tables.users, tables.interactions, dataset.user_groups)
    return conform(pa.concat_tables([items, users]), GROUPS, "groups", unique=("kind", "entity_id"))
