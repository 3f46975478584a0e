import pyarrow as pa

from pipeline.groups.alignment import align_user_groups
from pipeline.schemas import GROUPS


def groups(**members: str) -> pa.Table:
    """cluster=\"ids\"; items are in `drama`."""
    rows = [
        {"entity_id": entity, "kind": "user", "group": name.replace("_", "-")}
        for name, ids in members.items()
        for entity in ids
    ]
    rows.append({"entity_id": "i", "kind": "item", "group": "drama"})
    return pa.Table.from_pylist(rows, schema=GROUPS)


def names(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["entity_id"].to_pylist(), table["group"].to_pylist(), strict=True))


def test_a_permutation_is_undone():
    before = groups(cluster_00="abcd", cluster_01="efg", cluster_02="hk")
    after = groups(cluster_00="efg", cluster_01="hk", cluster_02="abcd")
    assert names(align_user_groups(after, before)) == names(before)


def test_the_assignment_is_the_best_for_all_together():
    before = groups(cluster_00="abcde", cluster_01="fgh")
    after = groups(cluster_00="abcfg", cluster_01="deh")  # greedily, the first would take cluster-00: 3 + 1
    aligned = names(align_user_groups(after, before))
    assert aligned["a"] == "cluster-00" and aligned["d"] == "cluster-01"  # 3 + 1, against 2 + 2


def test_new_clusters_and_users_without_interactions():
    before = groups(cluster_01="ab", cluster_none="z")
    after = groups(cluster_00="ab", cluster_01="cd", cluster_02="ef", cluster_none="z")
    aligned = names(align_user_groups(after, before))
    assert aligned["a"] == "cluster-01" and aligned["z"] == "cluster-none" and aligned["i"] == "drama"
    assert {aligned["c"], aligned["e"]} == {"cluster-00", "cluster-02"}


def test_without_an_earlier_grouping_nothing_changes():
    after = groups(cluster_00="ab")
    assert align_user_groups(after, GROUPS.empty_table()) is after


def test_the_order_of_rows_does_not_matter():
    before = groups(cluster_00="abc", cluster_01="defg")
    after = groups(cluster_00="defga", cluster_01="bc")
    expected = names(align_user_groups(after, before))
    shuffled = after.take(list(reversed(range(after.num_rows))))
    assert names(align_user_groups(shuffled, before.take(list(reversed(range(before.num_rows)))))) == expected
