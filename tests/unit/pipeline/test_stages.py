import io
import logging
import re
import time

import pytest
from rich.console import Console

from pipeline import stages
from pipeline.stages import MessageHandler, messages, stage, stages_shown


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


def shown_on(console: Console) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_a_terminal_shows_the_stage_with_a_clock_and_keeps_what_it_took(monkeypatch):
    monkeypatch.setattr(stages, "WORTH_A_TIME_SEC", 0.0)
    console = terminal()
    with stages_shown(console), stage("reading ratings.csv"):
        time.sleep(0.3)
        assert "reading ratings.csv 0:00:00" in shown_on(console)
    assert shown_on(console).splitlines()[-1] == "reading ratings.csv (0:00)"


def test_a_stage_says_how_far_it_is():
    console = terminal()
    with stages_shown(console), stage("measuring") as say:
        say("measuring: 3 of 60")
        time.sleep(0.6)
    assert "measuring: 3 of 60 0:00:00" in shown_on(console)


def test_a_short_stage_leaves_nothing_behind():
    console = terminal()
    with stages_shown(console), stage("loading libraries", is_short=True):
        pass
    last_line = shown_on(console).replace("\r", "\n").splitlines()[-1]
    assert "loading libraries" in shown_on(console) and last_line == ""


def test_a_log_gets_a_line_at_the_beginning_and_others_while_it_lasts(monkeypatch, caplog):
    monkeypatch.setattr(stages, "PLAIN_INTERVAL_SEC", 0.05)
    caplog.set_level(logging.INFO)
    with stages_shown(Console(file=io.StringIO())), stage("measuring") as say:
        assert caplog.messages == ["measuring"]
        say("measuring: 3 of 60")
        time.sleep(0.3)
    num_lines = len(caplog.messages)
    assert num_lines >= 3 and set(caplog.messages[1:]) == {"measuring: 3 of 60 (0:00)"}
    time.sleep(0.2)
    assert len(caplog.messages) == num_lines


@pytest.mark.parametrize(("is_short", "expected"), [(False, ["reading"]), (True, [])])
def test_a_library_logs_the_stage_once(caplog, is_short, expected):
    caplog.set_level(logging.INFO)
    with stage("reading", is_short=is_short) as say:
        say("half of it")
    assert caplog.messages == expected


def test_a_stage_that_fails_is_over_and_claims_nothing():
    console = terminal()
    with pytest.raises(ValueError, match="no"), stages_shown(console), stage("reading"):
        raise ValueError("no")
    assert "reading (" not in shown_on(console) and not shown_on(console).endswith("reading\n")


def test_messages_are_whole_lines_as_they_are_written(capsys):
    line = "[bold]" + "x" * 200 + " :smile:"
    MessageHandler().emit(logging.LogRecord("pipeline", logging.INFO, "", 0, "%s", (line,), None))
    assert capsys.readouterr().err == line + "\n"
    assert messages() is messages()
