"""What time it is for the broker, whatever this host's clock says."""

from __future__ import annotations

import time

import pytest
from nats.aio.client import Client

from services.chassis.nats.clock import BrokerClock
from services.chassis.process.supervise import Loops


async def test_the_broker_s_time_is_known_whatever_this_host_s_clock_says(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    clock = BrokerClock(connection)
    assert clock.host_ahead_s is None
    assert clock.now() == pytest.approx(real() + 61, abs=20)
    await clock.start(Loops())
    assert clock.now() == pytest.approx(real(), abs=20)
    assert clock.host_ahead_s == pytest.approx(61, abs=20)
    clock.stop()


def between(since_s: float, at_first_s: float, clock: BrokerClock) -> bool:
    """Whether the clock says what has become of `at_first_s` since then, to the millisecond."""
    earliest_s = at_first_s + time.monotonic() - since_s
    now_s = clock.now()
    return earliest_s - 0.001 <= now_s <= at_first_s + time.monotonic() - since_s + 0.001


def test_the_quickest_answer_is_believed() -> None:
    clock = BrokerClock(Client())
    now_s = time.monotonic()
    clock._take(now_s, 1000.2, now_s + 0.4)
    clock._take(now_s, 1000.0, now_s + 0.002)
    clock._take(now_s, 1000.7, now_s + 1.4)
    assert between(now_s, 999.999, clock)


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    clock = BrokerClock(Client())
    now_s = time.monotonic()
    clock._take(now_s, 1000.0, now_s + 0.002)
    clock._take(now_s, 5000.0, now_s + 0.2)
    assert between(now_s, 4999.9, clock)
