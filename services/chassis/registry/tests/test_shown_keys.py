"""Keys that a gateway shows on somebody's behalf: whose they are, and how that is looked at."""

from __future__ import annotations

import hmac
import time

import pytest
from nats.aio.client import Client

from schemas import subjects
from schemas.requests.keys import ApiKey, digest_of, new_secret
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.registry.shown_keys import ShownKeys


async def test_a_secret_is_its_keys_and_compared_in_a_time_that_says_nothing(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function that takes the same time for all is left as it is, and listened to."""
    secret, other = new_secret("k-shown"), new_secret("k-shown")
    key = ApiKey(id="k-shown", digest=digest_of(secret), ending=secret[-4:], created_at_s=time.time())
    keys = Bucket(connection, subjects.KEYS_BUCKET, messages(ApiKey))
    await keys.put(subjects.api_key("k-shown"), key)
    compared: list[tuple[object, object]] = []
    compare = hmac.compare_digest

    def listened(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", listened)
    shown = ShownKeys(connection)
    assert await shown.key_of(secret) == key
    assert await shown.key_of(other) is None
    assert compared == [(key.digest, digest_of(secret)), (key.digest, digest_of(other))]

    assert await shown.key_of(new_secret("k-nobody")) is None
    assert await shown.key_of("sk-none") is None
    assert await shown.key_of(None) is None
