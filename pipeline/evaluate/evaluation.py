"""What an evaluation found, and how it is stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluate.resampling import resample_users
from pipeline.evaluate.results import GREEDY, NONE, Result
from pipeline.evaluate.split import TEST, Events
from pipeline.evaluate.statistics import Comparison, Summary, compare, summarize_results

BASELINES = (NONE, GREEDY)


@dataclass(frozen=True)
class Findings:
    """What the results say on some of the test events."""

    num_events: int
    num_users: int
    summaries: list[Summary]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. `meta`: JSON values that say what was compared on what.

    `version` names the knowledge sets, `digest` how they were evaluated (models, seeds, encoder, ...).
    `warm`: of the users that were trained; None where their test events hold labels of one kind.
    """

    version: str
    digest: str
    meta: dict[str, Any]
    results: list[Result]
    everyone: Findings
    warm: Findings | None
    goal: float

    @property
    def names(self) -> tuple[str, str]:
        """What its files are called: a name of its own, and that of the latest of these knowledge sets."""
        return f"{self.version}-{self.digest}", self.version

    def as_dict(self) -> dict[str, Any]:
        """The content of `evaluation/<version>.json`."""
        return {
            "version": self.version,
            "digest": self.digest,
            "meta": self.meta,
            "rows": [result.as_dict() for result in self.results],
            **asdict(self.everyone),
            "warm": asdict(self.warm) if self.warm else None,
        }

    def paths(self, folder: Path, suffix: str) -> list[Path]:
        """The files of this suffix that it is written to."""
        return [folder / f"{name}.{suffix}" for name in self.names]


def find_all(results: Sequence[Result], events: Events) -> Findings:
    """What `results` say on all test events."""
    return _findings(results, events, events.of_part(TEST))


def find_warm(results: Sequence[Result], events: Events) -> Findings | None:
    """The same for `events.warm` alone; None if they hold labels of one kind only."""
    warm = events.warm
    if len(np.unique(events.labels[warm])) < 2:
        return None
    rows = np.searchsorted(events.of_part(TEST), warm)
    return _findings([one.of_events(rows, events.labels[warm]) for one in results], events, warm)


def _findings(results: Sequence[Result], events: Events, rows: np.ndarray) -> Findings:
    """`rows`: the events that `results` speak of."""
    users = events.users[rows]
    replicates = resample_users(results, events.labels[rows], users)
    return Findings(
        num_events=len(rows),
        num_users=len(np.unique(users)),
        summaries=summarize_results(results),
        comparisons=compare(results, BASELINES, replicates),
    )
