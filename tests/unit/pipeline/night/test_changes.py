from datetime import UTC, datetime

import pyarrow as pa

from pipeline.night.changes import BASE, compare, counts_by_kind, is_planned, is_unchanged
from pipeline.schemas import GROUPS, PROMPTS
from tests.publishing import TEXT_FINGERPRINT, entities

EARLY, LATE = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)


def base_of(rows, fingerprint=TEXT_FINGERPRINT, cutoff=EARLY) -> pa.Table:
    columns = [
        {name: row.get(name) for name in BASE.names} | {"fingerprint": fingerprint, "history_cutoff": cutoff}
        for row in rows
    ]
    return pa.Table.from_pylist(columns, schema=BASE)


def prompts_of(rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def groups_of(*ids, kind="user") -> pa.Table:
    return pa.Table.from_pylist([{"entity_id": i, "kind": kind, "group": "g"} for i in ids], schema=GROUPS)


def changes_of(base, prompts, chosen=None, known=None, cutoff=None) -> dict[str, str]:
    chosen = prompts.select(GROUPS.names) if chosen is None else chosen
    known = chosen if known is None else known
    table = compare(base, prompts, chosen, known, TEXT_FINGERPRINT, cutoff)
    return dict(zip(table["entity_id"].to_pylist(), table["change"].to_pylist(), strict=True))


def test_prompt_and_fingerprint_decide_what_is_carried():
    base = base_of(entities("user", "same", "prompt"))
    base = pa.concat_tables([base, base_of(entities("user", "print"), fingerprint="other")])
    tonight = prompts_of(
        entities("user", "same", "print", "new") + entities("user", "prompt", prompt="other", group="g9")
    )
    assert changes_of(base, tonight) == {
        "same": "carried", "prompt": "changed", "print": "changed", "new": "new",
    }  # fmt: skip


def test_another_group_alone_changes_nothing():
    base = base_of(entities("user", "u", group="cluster-00"))
    assert changes_of(base, prompts_of(entities("user", "u", group="cluster-07"))) == {"u": "carried"}


def test_only_what_left_the_data_is_gone():
    base = base_of(entities("user", "kept", "outside", "gone", "mute"))
    chosen, known = groups_of("kept", "mute", "shy"), groups_of("kept", "outside", "mute", "shy")
    assert changes_of(base, prompts_of(entities("user", "kept")), chosen, known) == {
        "kept": "carried", "outside": "outside", "gone": "gone", "mute": "unprompted", "shy": "unprompted",
    }  # fmt: skip


def test_rows_that_saw_later_events_than_the_cutoff_do_not_count():
    base = base_of(entities("user", "a", "b", "c"), cutoff=LATE)
    found = changes_of(
        base, prompts_of(entities("user", "a")), groups_of("a", "b"), groups_of("a", "b", "c"), EARLY
    )
    assert found == {"a": "new", "b": "withheld", "c": "withheld"}
    items = base_of(entities("item", "i"), cutoff=None)
    assert changes_of(items, prompts_of(entities("item", "i")), cutoff=EARLY) == {"i": "carried"}


def test_users_and_items_of_one_id_are_told_apart():
    base = base_of(entities("user", "1"))
    tonight = prompts_of(entities("user", "1") + entities("item", "1"))
    table = compare(
        base, tonight, tonight.select(GROUPS.names), tonight.select(GROUPS.names), TEXT_FINGERPRINT, None
    )
    counts = counts_by_kind(table)
    assert counts["user"]["carried"] == 1 and counts["item"]["new"] == counts["item"]["planned"] == 1
    planned = tonight.filter(pa.array(is_planned(tonight, table)))
    assert planned.select(["kind", "entity_id"]).to_pylist() == [{"kind": "item", "entity_id": "1"}]
    assert not is_unchanged(table)


def test_nothing_changed():
    base = base_of(entities("user", "a", "outside"))
    tonight = prompts_of(entities("user", "a"))
    known = groups_of("a", "outside")
    table = compare(base, tonight, groups_of("a"), known, TEXT_FINGERPRINT, None)
    assert is_unchanged(table)
    assert not is_unchanged(compare(base, tonight, groups_of("a"), groups_of("a"), TEXT_FINGERPRINT, None))
