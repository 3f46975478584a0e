import json
from datetime import UTC, datetime

import pytest

from pipeline.generate.time_series import append_line
from pipeline.sessions import DecodeTime, decode_time
from pipeline.storage.layout import RunLayout


@pytest.fixture
def run(tmp_path) -> RunLayout:
    return RunLayout(tmp_path)


def append(run: RunLayout, session: str, decode_sec: float, num_tokens: int) -> None:
    line = {
        "time": datetime(2026, 11, 22, tzinfo=UTC).isoformat(), "session": session, "decode_sec": decode_sec,
        "num_rows_done": 0, "num_workers": 1, "num_decoded_tokens": num_tokens, "num_engine_steps": 1,
        "drafter_sec": 0.0, "num_running": 1, "price": None, "sources": {},
    }  # fmt: skip
    append_line(run.progress, json.dumps(line) + "\n")


def test_all_sessions_count_each_by_its_last_line(run):
    for session, seconds, tokens in (("a", 1.0, 10), ("a", 2.0, 50), ("b", 3.0, 50)):
        append(run, session, seconds, tokens)
    append_line(run.progress, '{"session": "of another release"}\n')
    spent = decode_time(run, {"decode_sec": 3.0, "tokens_per_sec": 1.0})
    assert spent == DecodeTime(5.0, 100) and spent.sec_per_token == 0.05


def test_without_a_series_the_summary_tells_of_the_last_session(run):
    assert decode_time(run, {"decode_sec": 2.0, "tokens_per_sec": 50.0}) == DecodeTime(2.0, 100)
    for nothing in (None, {}, {"decode_sec": 0.0, "tokens_per_sec": None}):
        assert decode_time(run, nothing) == DecodeTime() and decode_time(run).sec_per_token is None
