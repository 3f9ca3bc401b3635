"""How far it is: an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

from services.client.bulk.progress import LiveReporter, PlainReporter, duration, line, reporter


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_come_every_few_seconds_with_rate_and_time_left() -> None:
    now_s = 0.0
    out = io.StringIO()
    with PlainReporter(out, clock=lambda: now_s, interval_s=5.0).phase("questions", 40, 10) as advance:
        for n in range(1, 31):
            now_s = n * 1.0
            advance(n == 3)
    lines = out.getvalue().splitlines()
    assert lines[0] == "questions: 10 of 40 are there already"
    assert lines[1] == "questions: 15 of 40, 1.0 a second, about 25 s left, 1 failed"
    assert lines[-1] == "questions: 40 of 40, 1.0 a second, 1 failed"
    assert len(lines) == 8


def test_a_terminal_sees_a_bar_that_counts() -> None:
    out = Terminal()
    live = reporter(out)
    assert isinstance(live, LiveReporter)
    with live.phase("questions", 3, 1) as advance:
        advance(False)
        advance(True)
    live.say("done")
    assert "3/3" in out.getvalue() and "1 failed" in out.getvalue() and "done" in out.getvalue()


def test_a_file_is_no_terminal() -> None:
    assert isinstance(reporter(io.StringIO()), PlainReporter)


def test_nothing_is_foretold_before_anything_came_back() -> None:
    assert line("questions", 0, 40, 0.0, 0) == "questions: 0 of 40"


def test_durations_are_for_people() -> None:
    told = [duration(seconds) for seconds in (0.2, 31.2, 185, 7500)]
    assert told == ["0 s", "31 s", "3 min 05 s", "2 h 05 min"]


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    now_s = 0.0
    out = io.StringIO()
    with PlainReporter(out, clock=lambda: now_s, interval_s=30.0).phase("tasks", 600, 0) as advance:
        for n in range(1, 301):
            now_s = n * 0.1
            advance(False)
        for n in range(1, 31):
            now_s = 30.0 + n
            advance(False)
    assert out.getvalue().splitlines()[:2] == [
        "tasks: 300 of 600, 10.0 a second, about 30 s left",
        "tasks: 330 of 600, 1.0 a second, about 4 min 30 s left",
    ]
