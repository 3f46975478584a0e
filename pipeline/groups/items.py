"""Items grouped by attribute: similar categories, similar knowledge (LASER, section 3.2)."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError
from pipeline.groups.names import group_name
from pipeline.schemas import GROUPS, TEXT, conform
from pipeline.settings import ItemGroupSettings


def group_items(items: pa.Table, settings: ItemGroupSettings) -> pa.Table:
    """One GROUPS row for each row of `items` (schema ITEMS), in the same order.

    The group of an item is the first one of `settings.groups` that names any of its categories (or
    values of `settings.attribute`), whatever their case; else that of the first of the `num_largest` most
    frequent other values; else the default group. Names are made safe by `group_name`; two that become
    the same raise `ConfigError`.
    """
    values = _values(items, settings.attribute)
    groups = settings.groups | _largest(values, settings)
    names = pa.array(_safe_names([*groups, settings.default_group]))
    ranks = _first_ranks(values, _rank_of_category(groups), len(names) - 1)
    columns = {
        "entity_id": items["item_id"],
        "kind": pa.repeat("item", items.num_rows),
        "group": names.take(pa.array(ranks)),
    }
    return conform(pa.table(columns), GROUPS, "item groups", unique=("kind", "entity_id"))


def _safe_names(texts: list[str]) -> list[str]:
    """The safe names; the default group may be one of the groups."""
    names: dict[str, str] = {}
    for text in texts:
        name = group_name(text)
        if names.setdefault(name, text) != text:
            raise ConfigError(
                f"dataset.item_groups: groups '{names[name]}' and '{text}' would both be named '{name}'"
            )
    return [group_name(text) for text in texts]


def _values(items: pa.Table, attribute: str | None) -> pa.ListArray:
    """What items are grouped by: their categories, or a list of the one attribute that is asked for."""
    if attribute is None:
        return items["categories"].combine_chunks()
    found = pc.map_lookup(items["attributes"], pa.scalar(attribute, TEXT), "first").combine_chunks()
    if len(found) and found.null_count == len(found):
        raise ConfigError(f"dataset.item_groups.attribute={attribute}: no item has this attribute")
    lengths = pc.if_else(pc.is_valid(found), 1, 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), found.drop_null())


def _largest(values: pa.ListArray, settings: ItemGroupSettings) -> dict[str, list[str]]:
    """The most frequent values that no group names, one group each; of equals the alphabetically first."""
    if not settings.num_largest:
        return {}
    named = {name.casefold() for names in settings.groups.values() for name in names}
    counts: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for row in pc.value_counts(pc.list_flatten(values)).to_pylist():
        key = row["values"].casefold()
        counts[key] += row["counts"]
        spelled.setdefault(key, row["values"])
    taken = {group_name(name) for name in [*settings.groups, settings.default_group]}
    largest: dict[str, list[str]] = {}
    for key, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        name = group_name(spelled[key])
        if key not in named and name not in taken:
            taken.add(name)
            largest[spelled[key]] = [spelled[key]]
        if len(largest) == settings.num_largest:
            break
    return largest


def _rank_of_category(groups: dict[str, list[str]]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for rank, categories in enumerate(groups.values()):
        for category in categories:
            ranks.setdefault(category.casefold(), rank)
    return ranks


def _first_ranks(categories: pa.ListArray, rank_of: dict[str, int], default: int) -> np.ndarray:
    """For each list the lowest rank of its values, `default` if none has one."""
    ranks = np.full(len(categories), default, dtype=np.int64)
    values = pc.list_flatten(categories).dictionary_encode()
    known = np.array(
        [rank_of.get(text.casefold(), default) for text in values.dictionary.to_pylist()], np.int64
    )
    if len(known):
        np.minimum.at(ranks, pc.list_parent_indices(categories).to_numpy(), known[values.indices.to_numpy()])
    return ranks
