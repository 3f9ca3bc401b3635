"""A gateway on a host whose clock is wrong counts what keys use by the time of all gateways, and ends by that
time what ends."""

from __future__ import annotations

import time

import httpx
import pytest
from nats.aio.client import Client

from schemas import subjects
from schemas.requests.keys import KEY_SCOPES, ApiKey, KeyLimits, ManageKeys
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.clock import BrokerClock
from services.client.client import Choir
from services.gateway.access.keyring import Keyring
from services.gateway.access.places import LEASE_S, read_held
from services.gateway.access.tests.conftest import MakeKey, logged_in
from services.gateway.tests.serving import serving

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
    await clock.measure(180.0)
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


@pytest.mark.parametrize("ahead_s", [AN_HOUR_S, -AN_HOUR_S])
async def test_a_login_at_one_gateway_is_as_fresh_at_another(
    live_mesh: str, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    secret, real = await make_key(scopes=KEY_SCOPES), time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    async with (
        serving(live_mesh, keys_required=True) as url,
        httpx.AsyncClient(base_url=url, timeout=TOLERANCE_S) as http,
    ):
        # Given a gateway on a host whose clock is wrong, when a browser shows its key there
        login = await http.post("/dashboard/login", json={"key": secret})
        said = dict(one.partition(";")[0].split("=") for one in login.headers.get_list("set-cookie"))
        http.cookies.clear()
        # Then any other gateway knows when that was
        assert int(said["choir_login"].partition(".")[0]) == pytest.approx(real(), abs=TOLERANCE_S)
        # And this one knows how long ago a browser logged in somewhere else
        for since_s, status in ((60, 200), (901, 401)):
            headers = logged_in(secret, real() - since_s)
            assert (await http.get("/dashboard/admin", headers=headers)).status_code == status, since_s
        # And a key that is made there for two days ends in two days
        body = {"label": "soon over", "days": 2}
        headers = {**logged_in(secret, real()), "origin": url}
        assert (await http.post("/dashboard/actions/keys/add", json=body, headers=headers)).is_success
    async with Choir(live_mesh) as mesh:
        (made,) = [key for key in await mesh.keys(ManageKeys()) if key.label == "soon over"]
        await mesh.keys(ManageKeys(action="revoke", id=made.id))
        await mesh.keys(ManageKeys(action="remove", id=made.id))
    assert made.expires_at_s == pytest.approx(real() + 2 * 86_400, abs=TOLERANCE_S)
