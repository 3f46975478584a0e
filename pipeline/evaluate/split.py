"""Which interactions are evaluated, and how they are split in time."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domains import DomainTables
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation_settings import EvaluationSettings
from pipeline.schemas import TIMESTAMP
from pipeline.settings import RunSettings

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Events:
    """The evaluated interactions in the order of time; users and items are rows of `user_ids`, `item_ids`."""

    users: np.ndarray  # int64
    items: np.ndarray  # int64
    times: np.ndarray  # int64, microseconds since 1970, ascending
    labels: np.ndarray  # float32, 1 for a rating above `positive_above`
    parts: np.ndarray  # int8: TRAIN, VALIDATION or TEST
    user_ids: pa.Array
    item_ids: pa.Array
    cutoff: datetime  # UTC; tests are at or after it
    num_interactions: int  # of the whole dataset

    def of_part(self, part: int) -> np.ndarray:
        """Rows of a part."""
        return np.flatnonzero(self.parts == part)

    @property
    def warm(self) -> np.ndarray:
        """Rows of the test whose user has an evaluated interaction before the cutoff."""
        known = np.unique(self.users[self.parts != TEST])
        rows = self.of_part(TEST)
        return rows[np.isin(self.users[rows], known)]


def choose_cutoff(interactions: pa.Table, settings: RunSettings) -> datetime:
    """`history_cutoff`, or the moment that leaves `evaluation.test_fraction` of `interactions` after it."""
    if settings.history_cutoff is not None:
        return settings.history_cutoff
    times = interactions["timestamp"].cast(pa.int64()).to_numpy()
    if not len(times):
        raise DataError("evaluate: there are no interactions")
    quantile = float(np.quantile(times, 1.0 - settings.evaluation.test_fraction))
    return datetime.fromtimestamp(np.ceil(quantile / 1e6), UTC)  # a whole second is easier to repeat


def most_active(tables: DomainTables, limit: int | str) -> dict[str, pa.Array]:
    """Kind -> ids of the `limit` users and items with the most interactions; of equals the first id."""
    chosen = {}
    for kind, known in (("user", tables.users["user_id"]), ("item", tables.items["item_id"])):
        counts = pc.value_counts(tables.interactions[f"{kind}_id"])
        ranked = pa.table({"id": counts.field("values"), "count": counts.field("counts")})
        ranked = ranked.sort_by([("count", "descending"), ("id", "ascending")])
        num = len(known) if limit == "all" else int(limit)
        chosen[kind] = ranked["id"].slice(0, num).combine_chunks()
    return chosen


def split_events(
    interactions: pa.Table, ids: dict[str, pa.Array], cutoff: datetime, evaluation: EvaluationSettings
) -> Events:
    """The interactions between the users and items of `ids`, labelled and split at `cutoff`.

    Validation is the latest `validation_fraction` of those before it. Raises `ConfigError` for implicit
    feedback, and where a part is empty or holds labels of one kind only.
    """
    if interactions["rating"].null_count == interactions.num_rows:
        raise ConfigError("evaluate: these interactions have no ratings, so there is nothing to label")
    known = pc.and_(
        pc.is_in(interactions["user_id"], value_set=ids["user"]),
        pc.is_in(interactions["item_id"], value_set=ids["item"]),
    )
    chosen = interactions.filter(pc.and_(known, pc.is_valid(interactions["rating"])))
    chosen = chosen.sort_by([("timestamp", "ascending"), ("user_id", "ascending"), ("item_id", "ascending")])
    times = chosen["timestamp"].cast(pa.int64()).to_numpy()
    events = Events(
        users=pc.index_in(chosen["user_id"], value_set=ids["user"]).to_numpy().astype(np.int64),
        items=pc.index_in(chosen["item_id"], value_set=ids["item"]).to_numpy().astype(np.int64),
        times=times,
        labels=(chosen["rating"].to_numpy() > evaluation.positive_above).astype(np.float32),
        parts=_parts(times, cutoff, evaluation.validation_fraction),
        user_ids=ids["user"],
        item_ids=ids["item"],
        cutoff=cutoff,
        num_interactions=interactions.num_rows,
    )
    _require_both_labels(events)
    return events


def _parts(times: np.ndarray, cutoff: datetime, validation_fraction: float) -> np.ndarray:
    """The part of each of the ascending `times`; interactions of one moment are never parted."""
    parts = np.full(len(times), TRAIN, dtype=np.int8)
    num_before = int(np.searchsorted(times, pa.scalar(cutoff, TIMESTAMP).value))
    parts[num_before:] = TEST
    if num_before:
        first = times[min(int(num_before * (1.0 - validation_fraction)), num_before - 1)]
        parts[np.searchsorted(times, first) : num_before] = VALIDATION
    return parts


def _require_both_labels(events: Events) -> None:
    for name, part in (("training", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        labels = events.labels[events.of_part(part)]
        if len(np.unique(labels)) < 2:
            when = events.cutoff.strftime("%Y-%m-%dT%H:%M:%SZ")
            raise ConfigError(
                f"limit: the {len(labels)} {name} interactions (cutoff {when}) do not hold both positive and "
                "negative labels; choose a larger limit or another history_cutoff"
            )
