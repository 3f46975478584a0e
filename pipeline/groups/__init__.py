"""Groups of similar entities. Each has a retrieval pool: similar entities have similar knowledge."""

from pipeline.groups.entities import group_entities, reject_unknown_groups
from pipeline.groups.items import group_items
from pipeline.groups.users import group_users

__all__ = ["group_entities", "group_items", "group_users", "reject_unknown_groups"]
