"""A gateway on a host whose clock is wrong counts what keys use by the time of all gateways."""

from __future__ import annotations

import time

import pytest
from nats.aio.client import Client

from schemas import subjects
from schemas.requests.keys import ApiKey, KeyLimits
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.clock import BrokerClock
from services.gateway.access.keyring import Keyring
from services.gateway.access.places import LEASE_S, read_held

AN_HOUR_S, TOLERANCE_S = 3_600.0, 180.0
LIMITS = KeyLimits(tokens_per_minute=50, requests_in_flight=2)
KEY = ApiKey(id="counted", digest="0" * 64, ending="0000", created_at_s=0.0, limits=LIMITS)


@pytest.mark.parametrize("ahead_s", [AN_HOUR_S, -AN_HOUR_S])
async def test_its_words_are_of_the_moment_that_others_have(
    connection: Client, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """Otherwise a key would be locked everywhere for an hour, or what it has in work count for nothing."""
    real, clock = time.time, BrokerClock(connection)
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    await clock.measure()
    keyring = Keyring(connection, clock.now)
    use = keyring.use_of(KEY)
    uses = Bucket(connection, subjects.KEY_USES_BUCKET, BYTES)
    # When a key has a request in work, and has used tokens
    with use.request(KEY, takes_tokens=True) as entry:
        assert entry is not None
        await entry.check()
        budget = use.budget(KEY)
        assert budget is not None
        await budget.charge(7)
        moment, _, tokens = ((await uses.get(subjects.key_use(KEY.id))).value or b"").partition(b":")
        ((count, until_s),) = read_held((await uses.get(subjects.key_places(KEY.id))).value).values()
    # Then that is told in the time of the broker
    assert (tokens, count) == (b"7", 1)
    assert int(moment) == pytest.approx(real(), abs=TOLERANCE_S)
    assert until_s == pytest.approx(real() + LEASE_S, abs=TOLERANCE_S)
    await keyring.settle()
