"""The log is one JSON object a line, whoever writes it."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from server.telemetry.logs import configure_logs, event_log
from tests.house import ROOT


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written to standard error; the logs of this process are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.setLevel(logging.INFO)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    yield said
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def lines(stderr: io.StringIO) -> Any:
    """The logged objects."""
    configure_logs("json")
    return lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_an_event_is_an_object_with_its_time_level_and_values(lines: Any) -> None:
    event_log("server.rounds").warning("round_abandoned", round_id="r1", seconds=1.5)
    (line,) = lines()
    assert datetime.fromisoformat(line.pop("at")).utcoffset() is not None
    assert line == {
        "level": "warning",
        "event": "round_abandoned",
        "logger": "server.rounds",
        "round_id": "r1",
        "seconds": 1.5,
    }


def test_messages_of_the_standard_library_have_the_same_form(lines: Any) -> None:
    logging.getLogger("somebody.else").error("%d of %s", 3, "them")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("server.tier").exception("it failed")
    first, second = lines()
    assert (first["level"], first["event"], first["logger"]) == (
        "error",
        "3 of them",
        "somebody.else",
    )
    assert second["event"] == "it failed"
    assert "ValueError: two\nlines" in second["exception"]


def test_events_below_the_loggers_level_are_not_written(lines: Any) -> None:
    event_log("server.rounds").debug("too much")
    assert lines() == []


def test_a_program_that_has_not_configured_anything_can_log_events() -> None:
    code = (
        "from server.telemetry.logs import event_log\n"
        "event_log('server.rounds').warning('round_abandoned', round_id='r1')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "round_abandoned" in run.stderr
    assert "r1" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_text_and_everything_else_json(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logs("auto")
    event_log("server.rounds").warning("round_abandoned", round_id="r1")
    assert stderr.getvalue().startswith("{") != terminal


def test_the_console_form_is_readable_text(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logs("console")
    event_log("server.rounds").warning("round_abandoned", round_id="r1")
    assert "round_abandoned" in stderr.getvalue()
    assert "round_id=r1" in stderr.getvalue()
