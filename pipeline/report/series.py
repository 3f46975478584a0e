"""The curves of a run out of `progress.jsonl`: sessions put together, rates between lines."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pipeline.generate.contract import SourceCounts
from pipeline.report.figures import Moment, Speed
from pipeline.sessions import SessionLine, sessions_of

MAX_MOMENTS = 240


def read_speed(values: Iterable[dict[str, Any]]) -> tuple[Speed, datetime | None, datetime | None]:
    """(speed over all sessions, time of the first and of the last line) of a series' lines."""
    sessions = sessions_of(values)
    if not sessions:
        return Speed(), None, None
    lines = [line for session in sessions for line in session]
    begin, end = min(line.time for line in lines), max(line.time for line in lines)
    last = [session[-1] for session in sessions]
    stride = max(1, -(-len(lines) // MAX_MOMENTS))
    speed = Speed(
        decode_sec=sum(line.decode_sec for line in last),
        num_decoded_tokens=sum(line.num_decoded_tokens for line in last),
        num_engine_steps=sum(line.num_engine_steps for line in last),
        drafter_sec=sum(line.drafter_sec for line in last),
        num_sessions=len(sessions),
        sources=_sources(last),
        moments=[m for session in sessions for m in _moments(_thinned(session, stride), begin)],
    )
    return speed, begin, end


def _sources(last: list[SessionLine]) -> dict[str, SourceCounts]:
    names = sorted({name for line in last for name in line.sources})
    return {
        name: SourceCounts(
            sum(line.sources[name].num_draft_tokens for line in last if name in line.sources),
            sum(line.sources[name].num_accepted_tokens for line in last if name in line.sources),
        )
        for name in names
    }


def _thinned(lines: list[SessionLine], stride: int) -> list[SessionLine]:
    return [*lines[:-1:stride], lines[-1]]


def _moments(lines: Sequence[SessionLine], begin: datetime) -> list[Moment]:
    pairs = itertools.pairwise(lines)
    return [_moment(before, after, begin) for before, after in pairs if after.decode_sec > before.decode_sec]


def _moment(before: SessionLine, after: SessionLine, begin: datetime) -> Moment:
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
