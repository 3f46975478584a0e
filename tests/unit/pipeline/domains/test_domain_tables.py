import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.domains import read_domain, write_domain
from pipeline.domains.tables import attribute_maps


def test_written_tables_are_read_back(raw_folder, dataset, tmp_path):
    tables = read_domain(dataset(raw_folder("1m")))
    folder = tmp_path / "tables"
    write_domain(tables, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    for name in ("users", "items", "interactions"):
        assert pq.read_table(folder / f"{name}.parquet").to_pylist() == getattr(tables, name).to_pylist()


def test_attributes_leave_nulls_out():
    columns = {"a": pa.array(["1", None, "3"]), "b": pa.array(["x", None, None], pa.string())}
    maps = attribute_maps(columns, 3)
    maps.validate(full=True)
    assert maps.to_pylist() == [[("a", "1"), ("b", "x")], [], [("a", "3")]]
    assert attribute_maps({}, 2).to_pylist() == [[], []]
    assert (
        attribute_maps({}, 0).to_pylist()
        == attribute_maps({"a": pa.array([], pa.string())}, 0).to_pylist()
        == []
    )


def test_a_million_ratings_with_a_few_bad_ones(tmp_path, dataset):
    num_ratings, num_items = 1_000_000, 5000
    rng = np.random.default_rng(0)
    ratings = pa.table(
        {
            "userId": np.arange(num_ratings) // 100,
            "movieId": rng.integers(num_items, size=num_ratings),
            "rating": rng.integers(1, 11, size=num_ratings) / 2,
            "timestamp": 1_000_000_000 + np.arange(num_ratings),
        }
    )
    with (tmp_path / "ratings.csv").open("wb") as file:
        pyarrow.csv.write_csv(ratings, file)
        file.write(b"1,2,3\n1,2,7.0,1000000000\n")
    films = "".join(f'{item},"Film {item}, The (1990)",Drama\n' for item in range(num_items))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + films)

    tables = read_domain(dataset(tmp_path))
    assert (tables.users.num_rows, tables.items.num_rows) == (10_000, num_items)
    assert tables.interactions.num_rows == num_ratings
    assert (
        tables.interactions["item_id"].cast(pa.int64()).to_numpy().sum()
        == ratings["movieId"].to_numpy().sum()
    )
    assert tables.failed["line"].to_pylist() == [num_ratings + 2, num_ratings + 3]
