"""Reduction of vectors to fewer dimensions by principal components, fitted once and kept."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.encode.encoder import Vectors
from pipeline.errors import ConfigError, CorruptPartError
from pipeline.storage.files import replaced_atomically


@dataclass(frozen=True)
class Reduction:
    """`(vectors - mean) @ components.T`. `mean` float32 [dim], `components` float32 [reduced_dim, dim].

    Reduced vectors are not brought to length one again: their length says how much of a text is left.
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    explained_variance: float  # share of the variance of the fitted texts

    @classmethod
    def fit(cls, vectors: Vectors, reduced_dim: int) -> "Reduction":
        """Fit to `vectors` [n, dim]; `ConfigError` unless reduced_dim <= min(n, dim)."""
        from sklearn.decomposition import PCA

        num_rows, dim = vectors.shape
        if reduced_dim > min(num_rows, dim):
            raise ConfigError(
                f"encoder.reduced_dim={reduced_dim}: must be at most {min(num_rows, dim)} "
                f"(the encoder's {dim} dimensions, {num_rows} texts to fit on)"
            )
        pca = PCA(reduced_dim, svd_solver="full").fit(vectors.astype(np.float64))
        return cls(
            np.asarray(pca.mean_, np.float32),
            np.asarray(pca.components_, np.float32),
            float(pca.explained_variance_ratio_.sum()),
        )

    def apply(self, vectors: Vectors) -> Vectors:
        """`vectors` float32 [n, dim] as float32 [n, reduced_dim]."""
        return np.asarray((vectors - self.mean) @ self.components.T, np.float32)

    @property
    def sha256(self) -> str:
        """Identifies the reduction; hex."""
        return hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write an .npz of `mean`, `components` and `explained_variance`, atomically."""
        with replaced_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mean=self.mean,
                components=self.components,
                explained_variance=np.float64(self.explained_variance),
            )

    @classmethod
    def load(cls, path: Path) -> "Reduction":
        """Read what `save` wrote; raises `FileNotFoundError`, or `CorruptPartError`."""
        content = path.read_bytes()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(arrays["mean"], arrays["components"], float(arrays["explained_variance"]))
        except (OSError, ValueError, KeyError) as error:
            raise CorruptPartError(f"{path}: unreadable: {error}") from error
