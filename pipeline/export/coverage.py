"""How much of the interactions the embeddings cover."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encode.versions import Embeddings
from pipeline.errors import CorruptPartError, DataError
from pipeline.export.view import entity_ids
from pipeline.settings import KINDS, Kind
from pipeline.storage.layout import DatasetLayout
from pipeline.storage.location import open_parquet

BATCH_ROWS = 1_000_000


@dataclass(frozen=True)
class KindCoverage:
    """Of one kind: different ids in the interactions, those with a vector, interactions of the latter."""

    num_ids: int
    num_ids_covered: int
    num_interactions_covered: int


@dataclass(frozen=True)
class Coverage:
    """`num_both_covered`: interactions whose user and item have a vector."""

    num_interactions: int
    num_both_covered: int
    kinds: dict[Kind, KindCoverage]

    def as_dict(self) -> dict[str, object]:
        """Counts and shares, as `coverage.json` has them; a share of nothing is null."""
        values: dict[str, object] = {
            "num_interactions": self.num_interactions,
            "num_interactions_covered": self.num_both_covered,
            "share_of_interactions": _share(self.num_both_covered, self.num_interactions),
        }
        for kind, counts in self.kinds.items():
            values[kind] = {
                "num_ids": counts.num_ids,
                "num_ids_covered": counts.num_ids_covered,
                "share_of_ids": _share(counts.num_ids_covered, counts.num_ids),
                "num_interactions_covered": counts.num_interactions_covered,
                "share_of_interactions": _share(counts.num_interactions_covered, self.num_interactions),
            }
        return values


def measure_coverage(layout: DatasetLayout, embeddings: Embeddings) -> tuple[Coverage, dict[Kind, pa.Array]]:
    """(coverage, for each kind the ids of the interactions that have no vector, sorted).

    Reads `tables/interactions.parquet` in batches; `DataError` if it is not there.
    """
    known = {kind: entity_ids(layout, embeddings, kind) for kind in KINDS}
    seen: dict[Kind, list[pa.Array]] = {kind: [] for kind in KINDS}
    num_rows = num_both = 0
    num_covered = dict.fromkeys(KINDS, 0)
    for batch in _interactions(layout):
        masks: dict[Kind, npt.NDArray[np.bool_]] = {}
        for kind in KINDS:
            column = batch[f"{kind}_id"]
            masks[kind] = np.asarray(pc.is_in(column, value_set=known[kind]).to_numpy(zero_copy_only=False))
            num_covered[kind] += int(masks[kind].sum())
            seen[kind].append(column.unique())
        num_rows += batch.num_rows
        num_both += int(np.logical_and.reduce(list(masks.values())).sum())
    ids = {kind: _distinct(seen[kind]) for kind in KINDS}
    missing = {kind: _sorted(_without(ids[kind], known[kind])) for kind in KINDS}
    kinds = {
        kind: KindCoverage(len(ids[kind]), len(ids[kind]) - len(missing[kind]), num_covered[kind])
        for kind in KINDS
    }
    return Coverage(num_rows, num_both, kinds), missing


def _interactions(layout: DatasetLayout) -> Iterator[pa.RecordBatch]:
    path = layout.tables / "interactions.parquet"
    try:
        with open_parquet(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=[f"{kind}_id" for kind in KINDS])
    except FileNotFoundError as error:
        raise DataError(f"{path}: not there; coverage cannot be told, `make generate` writes it") from error
    except (OSError, pa.ArrowException) as error:
        raise CorruptPartError(f"{path}: {str(error).splitlines()[0]}") from error


def _distinct(arrays: list[pa.Array]) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.string()), *arrays]).unique()


def _without(ids: pa.Array, others: pa.Array) -> pa.Array:
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others)))


def _sorted(ids: pa.Array) -> pa.Array:
    return ids.take(pc.sort_indices(ids))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
