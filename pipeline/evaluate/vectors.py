"""Knowledge texts as the vectors that CTR models see."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.decomposition import PCA

from pipeline.errors import DataError

Encode = Callable[[list[str]], np.ndarray]  # texts -> float32 [num_texts, width]
Vectors = dict[str, np.ndarray]  # kind -> float32 [num_entities + 1, dimension + 1]; row 0: no knowledge


def knowledge_vectors(
    sets: dict[str, pa.Table], ids: dict[str, pa.Array], fitted_on: str, dimension: int, encode: Encode
) -> dict[str, Vectors]:
    """The vectors of each set of knowledge rows, for the entities of `ids` (kind -> ids, in their order).

    One projection for each kind, fitted on the set `fitted_on`, serves all sets: equal texts have
    equal vectors. The last column is 1 for entities that the set has a text for, else the row is 0.
    """
    vectors: dict[str, Vectors] = {name: {} for name in sets}
    embedded = _embedded(sets, encode)
    for kind, known in ids.items():
        texts = {name: _texts(rows, kind, known) for name, rows in sets.items()}
        present = texts[fitted_on].drop_null()
        if not len(present):
            raise DataError(f"evaluate: knowledge set {fitted_on} has no text of any {kind}")
        project = _projection(np.stack([embedded[text] for text in present.to_pylist()]), dimension)
        for name, column in texts.items():
            vectors[name][kind] = _table(column, embedded, project, dimension)
    return vectors


def _embedded(sets: dict[str, pa.Table], encode: Encode) -> dict[str, np.ndarray]:
    """The embedding of each different text."""
    texts = pc.unique(pa.chunked_array([chunk for rows in sets.values() for chunk in rows["text"].chunks]))
    return dict(zip(texts.to_pylist(), encode(texts.to_pylist()), strict=True))


def _texts(rows: pa.Table, kind: str, ids: pa.Array) -> pa.Array:
    """The text of each of `ids`; null for those without."""
    of_kind = rows.filter(pc.equal(rows["kind"], kind)).combine_chunks()
    places = pc.index_in(ids, value_set=of_kind["entity_id"].combine_chunks())
    return of_kind["text"].combine_chunks().take(places)


def _projection(embeddings: np.ndarray, dimension: int) -> Callable[[np.ndarray], np.ndarray]:
    """PCA to `dimension`, scaled so that the first component has a variance of one."""
    num_components = min(dimension, *embeddings.shape)
    pca = PCA(num_components, svd_solver="full").fit(embeddings)
    scale = float(np.sqrt(pca.explained_variance_[0])) if len(embeddings) > 1 else 0.0

    def project(values: np.ndarray) -> np.ndarray:
        projected = np.zeros((len(values), dimension), dtype=np.float32)
        projected[:, :num_components] = pca.transform(values) / (scale or 1.0)
        return projected

    return project


def _table(
    texts: pa.Array,
    embedded: dict[str, np.ndarray],
    project: Callable[[np.ndarray], np.ndarray],
    dimension: int,
) -> np.ndarray:
    table = np.zeros((len(texts) + 1, dimension + 1), dtype=np.float32)
    present = np.flatnonzero(pc.is_valid(texts).to_numpy(zero_copy_only=False))
    if len(present):
        values = np.stack([embedded[text] for text in texts.drop_null().to_pylist()])
        table[present + 1, :dimension] = project(values)
        table[present + 1, dimension] = 1.0
    return table


def deranged(table: np.ndarray, seed: int) -> np.ndarray:
    """`table` with the vectors of entities that have knowledge given to others: nobody keeps the own one.

    Entities without knowledge stay without. Raises `DataError` if a single entity has knowledge.
    """
    present = np.flatnonzero(table[:, -1] > 0)
    if len(present) < 2:
        raise DataError("evaluate: knowledge of a single entity cannot be given to another one")
    circle = np.random.default_rng(seed).permutation(present)
    shuffled = table.copy()
    shuffled[circle] = table[np.roll(circle, 1)]
    return shuffled
