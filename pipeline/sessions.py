"""The sessions of a run, one for each start of its driver, and what decoding took in all of them together.

They are read from `progress.jsonl`, which a session that was killed has written too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.generate.contract import SourceCounts
from pipeline.generate.time_series import read_series
from pipeline.storage.layout import RunLayout


class SessionLine(BaseModel):
    """One line of the series, see `pipeline.generate.time_series.record`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: datetime
    session: str
    decode_sec: float
    num_rows_done: int
    num_workers: int
    num_decoded_tokens: int
    num_engine_steps: int
    drafter_sec: float
    num_running: int
    price: float | None
    sources: dict[str, SourceCounts]


def sessions_of(values: Iterable[dict[str, Any]]) -> list[list[SessionLine]]:
    """The lines of each session, oldest first. Lines of another release are passed over."""
    sessions: dict[str, list[SessionLine]] = {}
    for value in values:
        line = _line(value)
        if line is not None:
            sessions.setdefault(line.session, []).append(line)
    return list(sessions.values())


def _line(value: dict[str, Any]) -> SessionLine | None:
    try:
        return SessionLine.model_validate(value)
    except ValidationError:
        return None


@dataclass(frozen=True)
class DecodeTime:
    """What decoding took, from the first ready worker on, and the tokens that it gave."""

    decode_sec: float = 0.0
    num_tokens: int = 0

    @property
    def sec_per_token(self) -> float | None:
        """None if nothing was decoded."""
        return self.decode_sec / self.num_tokens if self.num_tokens and self.decode_sec else None


def decode_time(run: RunLayout, summary: dict[str, Any] | None = None) -> DecodeTime:
    """Of all sessions of `run`; without a series, of the last one as the manifest's `summary` tells it."""
    last = [session[-1] for session in sessions_of(read_series(run.progress))]
    if not last:
        return summed_up(summary or {})
    return DecodeTime(
        round(sum(line.decode_sec for line in last), 3), sum(line.num_decoded_tokens for line in last)
    )


def summed_up(summary: dict[str, Any]) -> DecodeTime:
    """What the `summary` of a manifest says of its last session; nothing if there is none."""
    seconds, rate = summary.get("decode_sec") or 0.0, summary.get("tokens_per_sec") or 0.0
    return DecodeTime(seconds, round(seconds * rate))
