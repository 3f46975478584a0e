"""The groups of all entities of a domain."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.acceptance_settings import AcceptanceSettings
from pipeline.domains.tables import DomainTables
from pipeline.errors import ConfigError
from pipeline.groups.items import group_items
from pipeline.groups.users import group_users
from pipeline.schemas import GROUPS, conform
from pipeline.settings import DatasetSettings


def group_entities(tables: DomainTables, dataset: DatasetSettings) -> pa.Table:
    """One GROUPS row for each item and each user of `tables`, items first."""
    items = group_items(tables.items, dataset.item_groups)
    users = group_users(tables.users, tables.interactions, dataset.user_groups)
    return conform(pa.concat_tables([items, users]), GROUPS, "groups", unique=("kind", "entity_id"))


def reject_unknown_groups(acceptance: AcceptanceSettings, groups: pa.Table) -> None:
    """Raise `ConfigError` if an override names a group that no entity of `groups` (schema GROUPS) is in."""
    for number, override in enumerate(acceptance.overrides):
        known = pc.unique(groups.filter(pc.equal(groups["kind"], override.kind))["group"]).to_pylist()
        if override.group is not None and override.group not in known:
            raise ConfigError(
                f"acceptance.overrides[{number}].group={override.group}: no {override.kind} group of that "
                f"name; there are {', '.join(sorted(known))}"
            )
