"""A domain in tables as domain tables."""

from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains.interactions import InteractionRules
from pipeline.domains.raw.records import Parse, parse_json
from pipeline.domains.tables import DomainTables, users_of
from pipeline.domains.tabular.core import k_core
from pipeline.domains.tabular.entities import item_columns, read_items, read_users, user_columns
from pipeline.domains.tabular.feedback import feedback_columns, read_feedback
from pipeline.domains.tabular.rows import RawTable, check_rows
from pipeline.errors import ConfigError
from pipeline.settings import DatasetSettings, ItemsTableSettings, TabularSettings


def read_tabular(settings: DatasetSettings) -> DomainTables:
    """Read the tables that `settings.tabular` describes; relative paths are below `settings.raw`."""
    if settings.tabular is None:
        raise ConfigError("dataset.tabular: missing with dataset.reader=tabular")
    return read_tables(settings, settings.tabular, "dataset.tabular")


def read_tables(
    settings: DatasetSettings,
    tables: TabularSettings,
    field: str,
    parse: Parse = parse_json,
    may_lack_keys: bool = False,
) -> DomainTables:
    """Read `tables`, named `field` in messages; `parse` and `may_lack_keys` are about JSON, see `RawTable`.

    With a k-core the items are read twice: first only who they are, then all about those that stay. Bad
    items then count by the interactions that they cost: most of a catalogue may be outside the core.
    """
    limit = settings.max_bad_fraction
    raw_table = partial(RawTable, base=settings.raw, parse=parse, may_lack_keys=may_lack_keys)
    is_core = tables.k_core > 1
    first = _without_details(tables.items) if is_core else tables.items
    items_table = raw_table(f"{field}.items", first, columns=item_columns(first))
    items = read_items(items_table, first)
    check_rows(items_table, 1.0 if is_core else limit)
    logs = list(items_table.logs)
    users = None
    if tables.users is not None:
        users_table = raw_table(f"{field}.users", tables.users, columns=user_columns(tables.users))
        users = read_users(users_table, tables.users)
        check_rows(users_table, limit)
        logs += users_table.logs
    columns = feedback_columns(tables.interactions)
    feedback_table = raw_table(f"{field}.interactions", tables.interactions, columns=columns)
    interactions = read_feedback(feedback_table, tables.interactions, _rules(items, users, settings))
    check_rows(feedback_table, limit)
    if users is None:
        users = users_of(interactions)
    failed = pa.concat_tables([log.table() for log in [*logs, *feedback_table.logs]])
    core = k_core(DomainTables(users, items, interactions, failed), tables.k_core, field)
    if not is_core:
        return core
    del items, interactions
    again = raw_table(f"{field}.items", tables.items, columns=item_columns(tables.items))
    return replace(core, items=read_items(again, tables.items, wanted=pc.unique(core.items["item_id"])))


def _without_details(items: ItemsTableSettings) -> ItemsTableSettings:
    return items.model_copy(update={"attributes": {}, "categories": None})


def _rules(items: pa.Table, users: pa.Table | None, settings: DatasetSettings) -> InteractionRules:
    low, high = settings.rating_range or (0.0, 0.0)
    return InteractionRules(
        items=pc.unique(items["item_id"]),
        users=None if users is None else pc.unique(users["user_id"]),
        min_rating=low,
        max_rating=high,
    )
