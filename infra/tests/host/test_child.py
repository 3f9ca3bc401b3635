"""Supervision of one process, with small stand-in scripts instead of services."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from infra.host.children.child import BackOff, Child, ServiceCommand
from infra.host.children.processes import until

Say = list[tuple[str, str]]
Supervise = Callable[[str], Child]


@pytest.fixture
def said() -> Say:
    """All lines that were forwarded."""
    return []


@pytest_asyncio.fixture
async def supervise(said: Say) -> AsyncIterator[Supervise]:
    """Starts a script under supervision; it is ended after the test."""
    children: list[Child] = []

    def start(script: str) -> Child:
        command = ServiceCommand("stand-in", "one", [sys.executable, "-u", "-c", script], os.environ)
        child = Child(command, lambda name, line: said.append((name, line)), BackOff(first_s=0.05))
        children.append(child)
        child.start()
        return child

    yield start
    for child in children:
        await child.stop(deadline_s=1)


def test_the_back_off_doubles_up_to_a_limit_and_begins_anew_after_a_stable_minute() -> None:
    back_off = BackOff(first_s=0.5, longest_s=4)
    assert [back_off.after(1) for _ in range(5)] == [0.5, 1, 2, 4, 4]
    assert back_off.after(61) == 0.5
    assert back_off.after(1) == 1


async def test_every_line_is_forwarded_with_the_name_of_who_said_it(supervise: Supervise, said: Say) -> None:
    supervise(
        "import time; print('first\\nsecond'); print('x' * 300_000); print('open', end=''); time.sleep(60)"
    )
    assert await until(lambda: len(said) >= 3, 180)
    assert said[:2] == [("one", "first"), ("one", "second")]
    assert len(said[2][1]) == 300_000


async def test_a_line_does_not_command_the_terminal_that_shows_it(supervise: Supervise, said: Say) -> None:
    supervise("import time; print('a\\tb \\x1b]0;mine\\x07\\x9b2J \\x1b[31mred\\r'); time.sleep(60)")
    assert await until(lambda: bool(said), 180)
    assert said == [("one", "a\tb ]0;mine2J [31mred")]


async def test_a_process_that_dies_is_started_again(supervise: Supervise, said: Say) -> None:
    child = supervise("import time; print('here'); time.sleep(60)")
    assert await until(lambda: ("one", "here") in said, 180)
    first = child.pid
    child.kill()
    assert await until(lambda: child.pid not in (None, first), 180)
    assert ("one", "was ended by SIGKILL; starts again in 0.05 s") in said


async def test_wrong_settings_are_named_as_such(supervise: Supervise, said: Say) -> None:
    child = supervise("print('backend: no such thing'); raise SystemExit(2)")
    assert await until(lambda: child.exits >= 1 and len(said) >= 2, 180)
    assert said[:2] == [
        ("one", "backend: no such thing"),
        ("one", "cannot run with its settings (exit code 2); starts again in 0.05 s"),
    ]
    assert child.lines[0] == "backend: no such thing"


async def test_stopping_waits_for_the_process_to_finish(supervise: Supervise, said: Say) -> None:
    child = supervise(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('drained'), sys.exit(0)))\n"
        "print('here')\n"
        "while True: signal.pause()\n"
    )
    assert await until(lambda: ("one", "here") in said, 180)
    await child.stop(deadline_s=180)
    assert said == [("one", "here"), ("one", "drained")]
    assert (child.pid, child.last_exit) == (None, 0)


async def test_a_process_that_does_not_stop_is_killed(supervise: Supervise, said: Say) -> None:
    child = supervise(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(60)"
    )
    assert await until(lambda: ("one", "here") in said, 180)
    await child.stop(deadline_s=0.2)
    assert child.last_exit == -9
    assert ("one", "did not stop within 0 s and is killed") in said


async def test_a_paused_process_can_be_stopped(supervise: Supervise, said: Say) -> None:
    child = supervise("import time; print('here'); time.sleep(60)")
    assert await until(lambda: ("one", "here") in said, 180)
    assert child.pid is not None
    os.kill(child.pid, 19)
    await child.stop(deadline_s=180)
    assert child.last_exit == -15
