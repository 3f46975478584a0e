import numpy as np
import pyarrow as pa
import pytest

from pipeline.domains import DomainTables
from pipeline.groups import group_entities, group_users
from pipeline.groups.users import interaction_matrix
from pipeline.schemas import FAILED, GROUPS, INTERACTIONS, ITEMS, USERS
from pipeline.settings import DatasetSettings, ItemGroupSettings, UserGroupSettings


def users(ids):
    return pa.Table.from_pylist([{"user_id": user, "attributes": []} for user in ids], schema=USERS)


def interactions(rows):
    columns = {
        "user_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "rating": [row[2] for row in rows],
        "timestamp": list(range(len(rows))),
    }
    return pa.table(columns).cast(INTERACTIONS)


def taste(num_users=60, num_tastes=3, seed=0):
    """Users of `num_tastes` kinds; each kind rates items of its own, and a few that all know."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        own = 100 * (user % num_tastes) + rng.choice(20, size=10, replace=False)
        common = 1000 + rng.choice(5, size=2, replace=False)
        rows += [(f"u{user}", str(item), float(rng.integers(1, 6))) for item in [*own, *common]]
    return users(f"u{user}" for user in range(num_users)), interactions(rows)


def as_dict(groups):
    return dict(zip(groups["entity_id"].to_pylist(), groups["group"].to_pylist(), strict=True))


SETTINGS = UserGroupSettings(num_groups=3, num_factors=8, seed=1)


def test_users_of_one_taste_share_a_cluster():
    groups = group_users(*taste(), SETTINGS)
    assert groups.schema.equals(GROUPS)
    assert set(groups["kind"].to_pylist()) == {"user"}
    found = as_dict(groups)
    by_taste = [{found[f"u{user}"] for user in range(60) if user % 3 == kind} for kind in range(3)]
    assert [len(names) for names in by_taste] == [1, 1, 1]
    assert set.union(*by_taste) == {"cluster-00", "cluster-01", "cluster-02"}


def test_groups_do_not_depend_on_the_order_of_rows_or_chunks():
    table, ratings = taste(num_users=200, num_tastes=7)
    settings = UserGroupSettings(num_groups=12, num_factors=16, seed=3)
    expected = as_dict(group_users(table, ratings, settings))
    rng = np.random.default_rng(5)
    for _ in range(3):
        shuffled_users = table.take(rng.permutation(table.num_rows))
        shuffled = ratings.take(rng.permutation(ratings.num_rows))
        chunked = pa.concat_tables([shuffled.slice(0, 100), shuffled.slice(100)])
        assert as_dict(group_users(shuffled_users, chunked, settings)) == expected


def test_the_seed_decides():
    table, ratings = taste(num_users=200, num_tastes=7)
    first, second = (
        as_dict(group_users(table, ratings, UserGroupSettings(num_groups=12, num_factors=4, seed=seed)))
        for seed in (0, 1)
    )
    assert first != second


def test_clusters_are_numbered_from_the_largest():
    found = group_users(*taste(num_users=100, num_tastes=7), UserGroupSettings(num_groups=5, num_factors=8))
    sizes = {row["values"]: row["counts"] for row in found["group"].value_counts().to_pylist()}
    ordered = [sizes[name] for name in sorted(sizes)]
    assert ordered == sorted(ordered, reverse=True)


def test_users_without_interactions_are_apart():
    groups = as_dict(group_users(users(["a", "b", "c"]), interactions([("b", "1", 4.0)]), SETTINGS))
    assert groups == {"a": "cluster-none", "b": "cluster-00", "c": "cluster-none"}
    assert as_dict(group_users(users(["a"]), interactions([]), SETTINGS)) == {"a": "cluster-none"}
    assert group_users(users([]), interactions([]), SETTINGS).num_rows == 0


def test_fewer_users_and_items_than_clusters_and_factors():
    settings = UserGroupSettings(num_groups=150, num_factors=512)
    ratings = interactions([("a", "1", 4.0), ("b", "1", 2.0), ("b", "2", 5.0)])
    groups = as_dict(group_users(users(["a", "b"]), ratings, settings))
    assert set(groups.values()) == {"cluster-000", "cluster-001"}
    same = interactions([("a", "1", 4.0), ("b", "1", 4.0)])
    assert set(as_dict(group_users(users(["a", "b"]), same, settings)).values()) == {"cluster-000"}


def test_implicit_feedback_has_no_ratings():
    table, ratings = taste()
    nothing = pa.nulls(ratings.num_rows, pa.float32())
    position = ratings.schema.get_field_index("rating")
    groups = as_dict(
        group_users(table, ratings.set_column(position, INTERACTIONS.field("rating"), nothing), SETTINGS)
    )
    assert len({groups[f"u{user}"] for user in range(0, 60, 3)}) == 1


def test_the_matrix_is_scaled_sorted_and_takes_the_strongest_of_repetitions():
    rows = [("b", "2", 5.0), ("a", "9", 1.0), ("b", "2", 3.0), ("b", "1", None), ("x", "1", 5.0)]
    matrix = interaction_matrix(pa.array(["a", "b", "c"]), interactions(rows))
    assert matrix.has_canonical_format
    np.testing.assert_allclose(matrix.toarray(), [[0, 0, 0.5], [1.0, 1.5, 0], [0, 0, 0]])


def test_entities_are_items_and_users_with_ids_that_may_be_the_same():
    table, ratings = users(["1", "2"]), interactions([("1", "1", 4.0), ("2", "1", 3.0)])
    film = {"item_id": "1", "title": "Owl", "categories": ["Drama"], "attributes": []}
    tables = DomainTables(table, pa.Table.from_pylist([film], schema=ITEMS), ratings, FAILED.empty_table())
    dataset = DatasetSettings(
        name="films",
        reader="movielens",
        min_rating=1,
        max_rating=5,
        item_word="movie",
        item_groups=ItemGroupSettings(groups={"drama": ["Drama"]}),
        user_groups=UserGroupSettings(num_groups=1, num_factors=1),
    )
    groups = group_entities(tables, dataset)
    assert groups.schema.equals(GROUPS)
    assert groups.to_pylist() == [
        {"entity_id": "1", "kind": "item", "group": "drama"},
        {"entity_id": "1", "kind": "user", "group": "cluster-00"},
        {"entity_id": "2", "kind": "user", "group": "cluster-00"},
    ]


@pytest.mark.parametrize("seed", [0, 7])
def test_two_runs_give_the_same_groups(seed):
    settings = UserGroupSettings(num_groups=8, num_factors=16, seed=seed)
    assert group_users(*taste(150, 5), settings).equals(group_users(*taste(150, 5), settings))
