"""Keys that a gateway shows on somebody's behalf: whose they are, and how that is looked at."""

from __future__ import annotations

import time

from nats.aio.client import Client

from schemas import subjects
from schemas.requests.keys import ApiKey, digest_of, new_secret
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.registry.shown_keys import ShownKeys


async def test_a_secret_is_its_keys_and_compared_in_a_time_that_says_nothing(
    connection: Client, compared_digests: list[tuple[str, str]]
) -> None:
    secret, other = new_secret("k-shown"), new_secret("k-shown")
    key = ApiKey(id="k-shown", digest=digest_of(secret), ending=secret[-4:], created_at_s=time.time())
    keys = Bucket(connection, subjects.KEYS_BUCKET, messages(ApiKey))
    await keys.put(subjects.api_key("k-shown"), key)
    shown = ShownKeys(connection)
    assert await shown.key_of(secret) == key
    assert await shown.key_of(other) is None
    assert compared_digests == [(key.digest, digest_of(secret)), (key.digest, digest_of(other))]

    assert await shown.key_of(new_secret("k-nobody")) is None
    assert await shown.key_of("sk-none") is None
    assert await shown.key_of(None) is None
