"""Which interactions are evaluated, and how they are split in time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DataError
from pipeline.evaluation_settings import EvaluationSettings
from pipeline.schemas import TIMESTAMP
from pipeline.settings import RunSettings

TRAIN, VALIDATION, TEST = 0, 1, 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    def prompt_cutoff(self) -> datetime:
        """The first moment of the validation: a prompt that shows nothing from it on knows no label of
        validation or test."""
        return EPOCH + timedelta(microseconds=int(self.times[self.of_part(VALIDATION)[0]]))

    @property
    def warm(self) -> np.ndarray:
        """Rows of the test whose user was trained: it has an id, and events that its prompt could show."""
        known = np.unique(self.users[self.of_part(TRAIN)])
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


def most_active(interactions: pa.Table, limit: int | str, cutoff: datetime) -> dict[str, pa.Array]:
    """Kind -> ids of `limit` users and items, chosen without a look at how active they are after `cutoff`.

    Those with the most interactions before it (of equals the first id), and in proportion to their number
    those that have none before it, drawn by a hash of the id: a test of active users only would hardly
    have new ones.
    """
    before = interactions.filter(pc.less(interactions["timestamp"], pa.scalar(cutoff, TIMESTAMP)))
    chosen = {}
    for kind in ("user", "item"):
        all_ids = pc.unique(interactions[f"{kind}_id"])
        known = _by_activity(before[f"{kind}_id"])
        new = _by_hash(all_ids.filter(pc.invert(pc.is_in(all_ids, value_set=known))))
        num = len(all_ids) if limit == "all" else min(int(limit), len(all_ids))
        num_new = round(num * len(new) / len(all_ids))
        chosen[kind] = pa.concat_arrays([known[: num - num_new], new[:num_new]])
    return chosen


def _by_activity(ids: pa.ChunkedArray) -> pa.Array:
    """The different ids, the most frequent first; of equals the first id."""
    counts = pc.value_counts(ids)
    ranked = pa.table({"id": counts.field("values"), "count": counts.field("counts")})
    return ranked.sort_by([("count", "descending"), ("id", "ascending")])["id"].combine_chunks()


def _by_hash(ids: pa.Array) -> pa.Array:
    return pa.array(sorted(ids.to_pylist(), key=lambda one: blake2b(one.encode()).digest()), pa.string())


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
    names = ("timestamp", "user_id", "item_id")
    order = pc.sort_indices(chosen, sort_keys=[(name, "ascending") for name in names]).to_numpy()
    times = chosen["timestamp"].cast(pa.int64()).to_numpy()[order]
    events = Events(
        users=pc.index_in(chosen["user_id"], value_set=ids["user"]).to_numpy()[order].astype(np.int64),
        items=pc.index_in(chosen["item_id"], value_set=ids["item"]).to_numpy()[order].astype(np.int64),
        times=times,
        labels=(chosen["rating"].to_numpy()[order] > evaluation.positive_above).astype(np.float32),
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
