"""Looks at the API key that a gateway has been shown and passes on with what it asks for its caller.

A gateway may do by itself only what every tenant may. What takes more it asks at a keyed door, with the key
of whoever asked it: so it can do no more than those can who show it their keys.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.broker import catalog
from schemas.errors import BrokerUnavailable, NotPermitted, NotReady, Unauthenticated
from schemas.requests.keys import ApiKey, digest_of, id_in
from schemas.requests.tenants import LOCAL, Tenant
from services.chassis.nats.bucket import Bucket, messages

NO_KEY = "an API key has to come along with that, and this one is not valid"


class ShownKeys:
    """Reads keys and tenants from their buckets, each time: what is revoked opens nothing from then on.

    What runs out does so by `now`, the time by which the services of a mesh agree.
    """

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._keys = Bucket(client, subjects.KEYS_BUCKET, messages(ApiKey))
        self._tenants = Bucket(client, subjects.TENANTS_BUCKET, messages(Tenant))

    async def key_of(self, secret: str | None) -> ApiKey | None:
        """The key whose secret this is, whether or not it is good; None for what is no secret of any.

        Raises NotReady while the keys cannot be read.
        """
        key_id = id_in(secret or "")
        if secret is None or key_id is None:
            return None
        with _readable():
            key = (await self._keys.get(subjects.api_key(key_id))).value
        if key is None or not hmac.compare_digest(key.digest, digest_of(secret)):
            return None
        return key

    async def check(self, key: ApiKey | None, tenant: str, subject: str) -> ApiKey:
        """The same key, if it opens the endpoint `subject` for a tenant.

        Raises Unauthenticated for one that is none of the tenant's, NotPermitted for one that does not open
        that, or whose tenant may not do it; NotReady while the tenants cannot be read.
        """
        scopes = catalog.KEYED[subject]
        with _readable():
            found = (await self._tenants.get(subjects.tenant_key(tenant))).value
        now_s = self._now()
        found = found or (LOCAL if tenant == subjects.LOCAL_TENANT else None)
        if key is None or key.tenant != tenant or not key.usable(now_s):
            raise Unauthenticated(NO_KEY)
        if found is not None and not found.is_valid(now_s):
            raise Unauthenticated(NO_KEY)
        if not set(scopes) & set(key.scopes):
            raise NotPermitted(f"this key does not open that: it needs the scope {scopes[0]!r}")
        role = "ask" if found is None else found.role
        # A key that opens something for `generate` opens it for those who may ask.
        needs = next(role for role in catalog.ROLES if _scope_of(role) in scopes)
        if catalog.ROLES.index(role) < catalog.ROLES.index(needs):
            raise NotPermitted(f"the tenant {tenant} may not do that: it needs the role {needs!r}")
        return key


@contextmanager
def _readable() -> Iterator[None]:
    """Says to whoever shows a key that nobody can look at it now."""
    try:
        yield
    except (BrokerUnavailable, ValidationError) as error:
        raise NotReady("the keys of the mesh cannot be read at present; ask again") from error


def _scope_of(role: catalog.Role) -> str:
    return "generate" if role == "ask" else role
