"""What an evaluation found, and how it is stored."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.evaluate.results import Result
from pipeline.evaluate.statistics import Comparison, Summary


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. `meta`: JSON values that say what was compared on what."""

    version: str
    meta: dict[str, Any]
    results: list[Result]
    summaries: list[Summary]
    comparisons: list[Comparison]
    goal: float

    def as_dict(self) -> dict[str, Any]:
        """The content of `evaluation/<version>.json`."""
        return {
            "version": self.version,
            "meta": self.meta,
            "rows": [result.as_dict() for result in self.results],
            "summaries": [asdict(summary) for summary in self.summaries],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }
