"""The tenants as the bucket has them: a live copy, for whoever lets requests in or shows something."""

from __future__ import annotations

import time
from collections.abc import Callable

from nats.aio.client import Client

from schemas import subjects
from schemas.broker.catalog import Role
from schemas.errors import NotPermitted
from schemas.requests.tenants import LOCAL, Tenant
from services.chassis.nats.bucket import Bucket, messages


class Tenants:
    """Everybody who has a record, let in or not by `now`, the time by which the services of a mesh agree."""

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self._known: dict[str, Tenant] = {}
        self._now = now
        self._bucket = Bucket(
            client, subjects.TENANTS_BUCKET, messages(Tenant), self._on_put, self._on_delete
        )

    async def start(self) -> None:
        """Returns when it is known who there is."""
        await self._bucket.watch()

    async def resume(self) -> None:
        """After a reconnection, or when updates were missed."""
        await self._bucket.reload()

    @property
    def known(self) -> tuple[Tenant, ...]:
        """Everybody who is let in now, in the order of their names, `local` as well if it has a record."""
        now_s = self._now()
        return tuple(one for _, one in sorted(self._known.items()) if one.is_valid(now_s))

    def find(self, name: str) -> Tenant | None:
        """The record of a tenant; of `local` the usual one if it has none, of others None."""
        return self._known.get(name) or (LOCAL if name == subjects.LOCAL_TENANT else None)

    def role_of(self, name: str) -> Role:
        """What a tenant may do. One that nobody knows came by the key of a gateway: it may ask."""
        found = self.find(name)
        return "ask" if found is None else found.role

    def sees_all(self, name: str) -> bool:
        """Whether a tenant may see what belongs to others."""
        return self.role_of(name) == "operate"

    def check(self, name: str) -> None:
        """Raises NotPermitted if a tenant is let in no more. The broker ends its connections too, a moment
        later."""
        found = self._known.get(name)
        if found is not None and not found.is_valid(self._now()):
            raise NotPermitted(f"the tenant {name} is let in no more: ask who operates the mesh")

    def _on_put(self, _key: str, tenant: Tenant) -> None:
        self._known[tenant.name] = tenant

    def _on_delete(self, key: str) -> None:
        self._known.pop(subjects.tenant_of_key(key), None)
