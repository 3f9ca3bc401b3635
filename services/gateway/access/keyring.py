"""The keys of the mesh, as a gateway has them: a live copy of the bucket `choir_keys`.

While the broker is away the keys that were known go on to be good, and the mesh cannot be asked anyway.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from nats.aio.client import Client

from schemas import subjects
from schemas.requests.keys import ApiKey, digest_of
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.registry.tenants import Tenants
from services.gateway.access.budget import Budgets
from services.gateway.access.limits import KeyUse
from services.gateway.access.places import Places
from services.gateway.access.rate import Rates


class Keyring:
    """Finds the key of a secret. A secret is looked for by its digest, and never compared itself.

    `tenants` says what the tenant may do that a key is a part of. `now` is the time that it is for all
    gateways: their hosts' clocks may differ.
    """

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._of_digest: dict[str, ApiKey] = {}
        self._digests: dict[str, str] = {}
        self._uses: dict[str, KeyUse] = {}
        self._budgets = Budgets(client, now)
        self._places = Places(client, now=now)
        self._rates = Rates(client, now)
        self.tenants = Tenants(client, now)
        self._bucket = Bucket(client, subjects.KEYS_BUCKET, messages(ApiKey), self._on_put, self._on_delete)

    async def start(self) -> None:
        """Returns when all keys and all tenants are known."""
        await self.tenants.start()
        await self._bucket.watch()

    async def settle(self) -> None:
        """The gateway ends: what keys hold here is free."""
        await self._places.settle()

    async def resume(self) -> None:
        """After a reconnection, or when updates were missed."""
        await self.tenants.resume()
        await self._bucket.reload()

    def _on_put(self, _key: str, key: ApiKey) -> None:
        self._forget(key.id)
        self._digests[key.id] = key.digest
        self._of_digest[key.digest] = key

    def _on_delete(self, key: str) -> None:
        key_id = subjects.id_of_api_key(key)
        self._forget(key_id)
        self._uses.pop(key_id, None)
        self._budgets.forget(key_id)
        self._places.forget(key_id)
        self._rates.forget(key_id)

    def _forget(self, key_id: str) -> None:
        if (digest := self._digests.pop(key_id, None)) is not None:
            self._of_digest.pop(digest, None)

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, if it is good, and if its tenant is let in."""
        digest, now_s = digest_of(secret), self.now()
        key = self._of_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest) or not key.usable(now_s):
            return None
        tenant = self.tenants.find(key.tenant)
        return key if tenant is None or tenant.is_valid(now_s) else None

    def with_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, if it is good."""
        digest = self._digests.get(key_id)
        key = None if digest is None else self._of_digest.get(digest)
        return key if key is not None and key.usable(self.now()) else None

    def use_of(self, key: ApiKey) -> KeyUse:
        """What a key uses here; that of before when its limits have changed."""
        return self._uses.setdefault(key.id, KeyUse(self._budgets, self._places, self._rates))
