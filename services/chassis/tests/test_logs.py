"""Logs: one line per event, for people or for machines, and never what users write."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from schemas.commands import Generate
from schemas.errors import PoisonMessage
from services.chassis.identity import Identity
from services.chassis.logs import configure_logs, get_logger
from services.chassis.settings import LoggingSection

SECRET = "my grandmother's recipe"
IDENTITY = Identity("agent", "agent-7")


@pytest.fixture(autouse=True)
def the_loggers_of_before() -> Iterator[None]:
    """Logging belongs to the whole process: it is given back as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_says_who_when_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LoggingSection(format="json"), IDENTITY)
    get_logger("some.module").info("ready", slots=4)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "ready",
        "slots": 4,
        "level": "info",
        "service": "agent",
        "instance": "agent-7",
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_value_can_neither_begin_a_line_nor_command_a_terminal(
    capsys: pytest.CaptureFixture[str], form: Literal["json", "console"]
) -> None:
    forged = 'no\n{"event": "all is well", "service": "router"}\r\x1b[2J\x9b1A\x07'
    configure_logs(LoggingSection(format=form), IDENTITY)
    get_logger("some.module").warning(forged, why=forged)
    logging.getLogger("a.library").error("it says %s", forged)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2
    assert said.replace("\n", "").isprintable()
    assert "all is well" in said


def test_a_console_line_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LoggingSection(format="console"), IDENTITY)
    get_logger("some.module").warning("model cannot be served", model="alpha")
    (line,) = capsys.readouterr().err.splitlines()
    assert "model cannot be served" in line
    assert "model=alpha" in line
    assert not line.startswith("{")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LoggingSection(format="json", level="warning"), IDENTITY)
    get_logger("some.module").info("ready")
    get_logger("some.module").warning("not ready")
    assert [line["event"] for line in lines(capsys)] == ["not ready"]


def test_loggers_of_libraries_write_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LoggingSection(format="json"), IDENTITY)
    logging.getLogger("some.library").warning("odd: %s", 3)
    (line,) = lines(capsys)
    assert (line["event"], line["instance"]) == ("odd: 3", "agent-7")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("field", ["prompt", "text", "messages", "answer"])
def test_texts_of_users_are_not_written_even_if_a_call_passes_them(
    form: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(LoggingSection.model_validate({"format": form}), IDENTITY)
    get_logger("some.module").info("done", **{field: SECRET})
    logging.getLogger("some.library").warning("done", extra={field: SECRET})
    written = capsys.readouterr().err
    assert written.count("(not logged)") == 2
    assert SECRET not in written


def test_an_error_of_a_schema_does_not_repeat_what_the_message_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(LoggingSection(format="json"), IDENTITY)
    try:
        Generate.model_validate_json(json.dumps({"prompt": SECRET}))
    except ValueError as error:
        get_logger("some.module").exception("unreadable")
        get_logger("some.module").error("unreadable", why=str(error), also=PoisonMessage(str(error)).body())
    written = capsys.readouterr().err
    assert "ValidationError" in written
    assert SECRET not in written
