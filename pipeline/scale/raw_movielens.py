"""Raw ratings.csv and movies.csv of any size, made up, in the form and with the skew of MovieLens-25M."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

GENRES = ("Drama", "Comedy", "Action|Thriller", "Horror", "Documentary", "Romance|Drama", "Sci-Fi")
ROWS_PER_BLOCK = 1_000_000


def write_movielens(
    folder: Path, num_interactions: int, num_users: int, num_items: int, seed: int = 0
) -> None:
    """Every user and item occurs, low numbers more often; sorted by user, as the real file is."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    _write_movies(folder / "movies.csv", num_items)
    users = np.sort(_skewed(draw, num_interactions, num_users)) + 1
    with pc_csv.CSVWriter(folder / "ratings.csv", _RATINGS, write_options=_OPTIONS) as writer:
        for start in range(0, num_interactions, ROWS_PER_BLOCK):
            block = users[start : start + ROWS_PER_BLOCK]
            writer.write_table(_ratings(draw, block, num_items))


_RATINGS = pa.schema(
    [("userId", pa.int64()), ("movieId", pa.int64()), ("rating", pa.float32()), ("timestamp", pa.int64())]
)
_OPTIONS = pc_csv.WriteOptions(quoting_style="none")


def _ratings(draw: np.random.Generator, users: np.ndarray, num_items: int) -> pa.Table:
    items = _skewed(draw, len(users), num_items) + 1
    ratings = draw.integers(1, 11, len(users)).astype(np.float32) / 2
    times = draw.integers(789_652_009, 1_574_327_703, len(users))
    return pa.table([users, items, ratings, times], schema=_RATINGS)


def _skewed(draw: np.random.Generator, count: int, size: int) -> np.ndarray:
    """`count` numbers below `size`, each at least once, low ones more often."""
    once = np.arange(size)
    rest = (size * draw.random(max(count - size, 0)) ** 2).astype(np.int64)
    return draw.permutation(np.concatenate([once, rest])[:count])


def _write_movies(path: Path, num_items: int) -> None:
    lines = ["movieId,title,genres"]
    lines += [
        f"{number},The Lighthouse Number {number} ({1950 + number % 70}),{GENRES[number % len(GENRES)]}"
        for number in range(1, num_items + 1)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
