"""The curves of a run out of `progress.jsonl`: sessions put together, rates between lines."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.generate.contract import SourceCounts
from pipeline.report.figures import Moment, Speed

MAX_MOMENTS = 240


class _Line(BaseModel):
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


def read_speed(values: Iterable[dict[str, Any]]) -> tuple[Speed, datetime | None, datetime | None]:
    """(speed over all sessions, time of the first and of the last line) of a series' lines."""
    sessions: dict[str, list[_Line]] = {}
    for value in values:
        line = _line(value)
        if line is not None:
            sessions.setdefault(line.session, []).append(line)
    if not sessions:
        return Speed(), None, None
    lines = [line for session in sessions.values() for line in session]
    begin, end = min(line.time for line in lines), max(line.time for line in lines)
    last = [session[-1] for session in sessions.values()]
    stride = max(1, -(-len(lines) // MAX_MOMENTS))
    speed = Speed(
        decode_sec=sum(line.decode_sec for line in last),
        num_decoded_tokens=sum(line.num_decoded_tokens for line in last),
        num_engine_steps=sum(line.num_engine_steps for line in last),
        drafter_sec=sum(line.drafter_sec for line in last),
        num_sessions=len(sessions),
        sources=_sources(last),
        moments=[m for session in sessions.values() for m in _moments(_thinned(session, stride), begin)],
    )
    return speed, begin, end


def _line(value: dict[str, Any]) -> _Line | None:
    try:
        return _Line.model_validate(value)
    except ValidationError:
        return None  # of another release


def _sources(last: list[_Line]) -> dict[str, SourceCounts]:
    names = sorted({name for line in last for name in line.sources})
    return {
        name: SourceCounts(
            sum(line.sources[name].num_draft_tokens for line in last if name in line.sources),
            sum(line.sources[name].num_accepted_tokens for line in last if name in line.sources),
        )
        for name in names
    }


def _thinned(lines: list[_Line], stride: int) -> list[_Line]:
    return [*lines[:-1:stride], lines[-1]]


def _moments(lines: Sequence[_Line], begin: datetime) -> list[Moment]:
    pairs = itertools.pairwise(lines)
    return [_moment(before, after, begin) for before, after in pairs if after.decode_sec > before.decode_sec]


def _moment(before: _Line, after: _Line, begin: datetime) -> Moment:
    steps = after.num_engine_steps - before.num_engine_steps
    seconds = after.decode_sec - before.decode_sec
    tokens = after.num_decoded_tokens - before.num_decoded_tokens
    drafting = after.drafter_sec - before.drafter_sec
    return Moment(
        time=after.time,
        minutes=(after.time - begin).total_seconds() / 60,
        session=after.session,
        tokens_per_sec=max(0.0, tokens / seconds),
        num_running=after.num_running,
        num_workers=after.num_workers,
        price=after.price,
        drafter_ms=1000 * drafting / steps if steps > 0 and drafting >= 0 else None,
    )
