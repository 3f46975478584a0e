"""LASER in the simulator.

At a fixed price a whole frontier can be shown: a low one drafts much, a high one only what is near
certain. At the measured price (None) the drafter's own rule decides, from the step times it is told.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafters.calibration import Calibration
from drafters.datastore import Datastore, DatastoreBuilder, Document, StoreHeader
from drafters.laser import DraftKey, LaserDrafter
from drafters.replay.simulator import replay
from drafters.replay.traces import Recording

KIND = "text"
TOKENIZER = "replay"
WARM_UP_PRICE = 0.05


class LaserReplay:
    """Adapts `LaserDrafter` to the simulator."""

    def __init__(
        self,
        datastore: Datastore,
        price: float | None,
        max_draft_tokens: int,
        calibration: Calibration | None = None,
        num_threads: int = 1,
    ) -> None:
        vocab_size = datastore.header.vocab_size
        self.drafter = LaserDrafter(
            vocab_size, max_draft_tokens, datastore, calibration, num_threads, fixed_price=price
        )

    def start(self, row: int, recording: Recording) -> None:
        """See `ReplayDrafter`."""
        key = DraftKey(KIND, recording.group, recording.entity_id)
        self.drafter.start(str(row), len(recording.prompt), key)

    def propose(
        self, rows: npt.NDArray[np.int64], context: npt.NDArray[np.int32], num_tokens: npt.NDArray[np.int64]
    ) -> list[list[int]]:
        """See `ReplayDrafter`."""
        return self.drafter.propose([str(row) for row in rows.tolist()], rows, context, num_tokens)

    def finish(self, row: int) -> None:
        """See `ReplayDrafter`."""
        self.drafter.finish(str(row))


def build_pools(folder: Path, pool: Sequence[Recording], vocab_size: int) -> Datastore:
    """A datastore of the outputs of `pool`, as a nightly run would build it: by group, and the domain's."""
    builder = DatastoreBuilder(folder, StoreHeader("pool", vocab_size, TOKENIZER, source="traces"))
    groups: dict[str, list[Document]] = {}
    for recording in pool:
        groups.setdefault(recording.group, []).append(Document.of(recording.entity_id, recording.output))
    for group, documents in sorted(groups.items()):
        builder.add(KIND, group, documents)
    return Datastore.open(builder.finish(), TOKENIZER, vocab_size)


def warm_calibration(datastore: Datastore, warm: Sequence[Recording], max_draft_tokens: int) -> Calibration:
    """What a replay of `warm` teaches; it also compiles the native code before anything is timed."""
    drafter = LaserReplay(datastore, WARM_UP_PRICE, max_draft_tokens)
    replay(drafter, warm)
    return drafter.drafter.calibration


def carried(calibration: Calibration) -> Calibration:
    """A copy, as a run takes it over from the one before."""
    return Calibration.from_dict(calibration.to_dict())
