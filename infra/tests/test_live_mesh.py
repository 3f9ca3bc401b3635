"""The mesh of `choir up` that the tests of a process share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infra.testing import choir_up

ASKS = "def test_it(live_mesh, record): record('asked')"
DOES_NOT_ASK = "def test_it(record): record('at something else')"


def test_it_is_asked_first_and_ends_before_the_first_test_that_does_not_need_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    @contextmanager
    def up(*_: object) -> Iterator[str]:
        log.append("began")
        yield "nats://127.0.0.1:1"
        log.append("ended")

    class Recorder:
        @pytest.fixture
        def record(self) -> object:
            return log.append

    monkeypatch.setattr(choir_up, "up", up)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(test_a=DOES_NOT_ASK, test_b=ASKS, test_c=DOES_NOT_ASK, test_d=ASKS)
    run = pytester.inline_run("-p", "infra.testing.choir_up", plugins=[Recorder()])

    run.assertoutcome(passed=4)
    assert log == ["began", "asked", "asked", "ended", "at something else", "at something else"]
