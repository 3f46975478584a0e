"""Users grouped by taste: factors of the interaction matrix, then k-means.

The result depends on what is in the tables and on the seed, not on the order of rows: ids are sorted
before they become numbers, and linear algebra runs on one thread, because sums of several threads
differ in their last bits.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from pipeline.schemas import GROUPS, conform
from pipeline.settings import UserGroupSettings

NO_INTERACTIONS = "cluster-none"


def group_users(users: pa.Table, interactions: pa.Table, settings: UserGroupSettings) -> pa.Table:
    """One GROUPS row for each row of `users` (schema USERS), in the same order.

    Clusters are named `cluster-00`, `cluster-01`, … from the largest to the smallest. There may be
    fewer than `settings.num_groups` of them. Users without interactions are in `cluster-none`.
    """
    ids = users["user_id"].combine_chunks()
    sorted_ids = ids.take(pc.sort_indices(ids))
    matrix = interaction_matrix(sorted_ids, interactions)
    active = np.flatnonzero(np.diff(matrix.indptr))
    names = np.full(len(sorted_ids), NO_INTERACTIONS, dtype=object)
    if active.size:
        with threadpool_limits(1):
            labels = _cluster(_factors(matrix[active], settings), settings)
        names[active] = _names_by_size(labels, settings.num_groups)
    columns = {
        "entity_id": ids,
        "kind": pa.repeat("user", len(ids)),
        "group": pa.array(names, pa.string()).take(pc.index_in(ids, value_set=sorted_ids)),
    }
    return conform(pa.table(columns), GROUPS, "user groups", unique=("kind", "entity_id"))


def interaction_matrix(user_ids: pa.Array, interactions: pa.Table) -> csr_matrix:
    """How strongly each user interacted with each item: float32, users x items, canonical CSR.

    Rows follow `user_ids`, columns the sorted item ids. A value goes from 0.5 (the lowest rating in
    the table) to 1.5 (the highest), 1 without a rating; of repeated interactions the strongest counts.
    Interactions of other users are left out.
    """
    items = pc.unique(interactions["item_id"])
    items = items.take(pc.sort_indices(items))
    num_columns = max(len(items), 1)
    users = pc.fill_null(pc.index_in(interactions["user_id"], value_set=user_ids), -1).to_numpy()
    cells = users * np.int64(num_columns)
    cells += pc.index_in(interactions["item_id"], value_set=items).to_numpy()
    known = users >= 0
    cells, values = _strongest(cells[known], _strengths(interactions["rating"])[known])
    rows, columns = np.divmod(cells, num_columns)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(user_ids)))])
    return csr_matrix((values, columns.astype(np.int32), indptr), shape=(len(user_ids), len(items)))


def _strongest(cells: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different cells, ascending, and the largest value of each."""
    if not len(cells):
        return cells, values
    order = np.argsort(cells)
    cells, values = cells[order], values[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    return cells[starts], np.maximum.reduceat(values, starts)


def _strengths(ratings: pa.ChunkedArray) -> np.ndarray:
    """Ratings scaled to 0.5 to 1.5; 1 where there is none or all are the same."""
    bounds = pc.min_max(ratings).as_py()
    low, high = bounds["min"], bounds["max"]
    if low is None or low == high:
        return np.ones(len(ratings), dtype=np.float32)
    values = pc.fill_null(ratings, (low + high) / 2).to_numpy()
    return (values - np.float32(low)) / np.float32(high - low) + np.float32(0.5)


def _factors(matrix: csr_matrix, settings: UserGroupSettings) -> np.ndarray:
    """Latent semantic analysis of the users: tf-idf, truncated SVD, rows of length one.

    Items that everyone knows tell little about taste, so they weigh little. Shape: users x factors.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    weighted = TfidfTransformer().fit_transform(matrix)
    num_factors = min(settings.num_factors, *matrix.shape)
    if matrix.shape[1] == 1:
        weighted.resize(len(matrix.indptr) - 1, 2)  # scikit-learn's SVD wants two columns
    svd = TruncatedSVD(num_factors, random_state=settings.seed)
    with np.errstate(invalid="ignore"):  # the explained variance, not used here, of rows that are all equal
        return normalize(svd.fit_transform(weighted))


def _cluster(factors: np.ndarray, settings: UserGroupSettings) -> np.ndarray:
    """The cluster of each row, equal rows together."""
    from sklearn.cluster import MiniBatchKMeans

    num_clusters = min(settings.num_groups, len(factors))
    return MiniBatchKMeans(num_clusters, random_state=settings.seed, n_init=4).fit_predict(factors)


def _names_by_size(labels: np.ndarray, num_groups: int) -> np.ndarray:
    """The name of each label's cluster; of equally large ones the lower label comes first."""
    found, sizes = np.unique(labels, return_counts=True)
    ranks = np.empty(len(found), dtype=np.int64)
    ranks[np.lexsort((found, -sizes))] = np.arange(len(found))
    digits = max(2, len(str(num_groups - 1)))
    names = np.array([f"cluster-{rank:0{digits}d}" for rank in ranks], dtype=object)
    return names[np.searchsorted(found, labels)]
