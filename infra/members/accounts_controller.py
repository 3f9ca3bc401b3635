"""Keeps the broker's accounts as the buckets of members say: whoever is added is let in within a second, and
whoever is revoked loses their connections.

The members are kept in a file besides: a broker that starts again lets them in before its buckets can be
read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from infra.members.members import KeptMembers, Members
from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.joining import Host, Invite
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import Bucket, messages

FILE = "members.json"
GATHERING_S = 0.1
"""So long changes are gathered before the broker reads them together."""
LOOK_INTERVAL_S = 5.0
"""So often it is looked who has run out."""


class AccountsController:
    """Watches the buckets, and has the broker take what they say.

    `block` says what the broker's accounts are for given members, `reload` gives them to it, and is told
    whether there is an account more, and `say` is told what went wrong.
    """

    def __init__(
        self,
        state: Path,
        block: Callable[[Members], str],
        reload: Callable[[str, bool], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self._path = state / FILE
        self.members = _read(self._path)
        self._block = block
        self._reload = reload
        self._say = say
        self.taken = block(self.members)
        self._names = self._names_now()
        self._changed = asyncio.Event()
        self._one = asyncio.Lock()
        self._missed = False

    async def start(self, client: Client) -> None:
        """Returns when the broker has taken what the buckets say."""
        members = self.members
        members.tenants.clear()
        members.hosts.clear()
        members.invites.clear()

        def put_tenant(_key: str, value: Tenant) -> None:
            members.tenants[value.name] = value
            self._changed.set()

        def put_host(_key: str, value: Host) -> None:
            members.hosts[value.name] = value
            self._changed.set()

        def put_invite(_key: str, value: Invite) -> None:
            members.invites[value.public_key] = value
            self._changed.set()

        def gone(known: dict[str, Tenant] | dict[str, Host] | dict[str, Invite]) -> Callable[[str], None]:
            def forget(key: str) -> None:
                known.pop(subjects.decode_token(key), None)
                self._changed.set()

            return forget

        self._buckets: tuple[Bucket[Tenant], Bucket[Host], Bucket[Invite]] = (
            Bucket(client, subjects.TENANTS_BUCKET, messages(Tenant), put_tenant, gone(members.tenants)),
            Bucket(client, subjects.HOSTS_BUCKET, messages(Host), put_host, gone(members.hosts)),
            Bucket(client, subjects.INVITES_BUCKET, messages(Invite), put_invite, gone(members.invites)),
        )
        self.tenants, self.hosts, self.invites = self._buckets
        for bucket in self._buckets:
            await bucket.watch()
        await self.settle()

    async def let_workers(self, models: Collection[str]) -> None:
        """Returns when agents may take the work of these models, which workers are registered for.
        ConfigurationError if the broker does not take that; `keep` tells it again."""
        if models != self.members.worker_models:
            self.members.register(models, self.now())
            await self.settle()

    def again(self) -> None:
        """After a reconnection: the buckets are read once more."""
        self._missed = True
        self._changed.set()

    async def keep(self) -> None:
        """Has the broker take each change, for ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._changed.wait()
                await asyncio.sleep(GATHERING_S)
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._read_again()
                await self._forget_retired()
                await self.settle()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                self._say(f"who may come in could not be changed: {str(error) or type(error).__name__}")

    async def _read_again(self) -> None:
        if self._missed:
            for bucket in self._buckets:
                await bucket.reload()
            self._missed = False

    async def _forget_retired(self) -> None:
        """Keys that another one has replaced go for good: the invite that says so is not kept for ever."""
        for tenant in tuple(self.members.tenants.values()):
            if self.members.keys_of(tenant, self.now()) != tenant.public_keys:
                change = partial(self._without_retired, tenant)
                self.members.tenants[tenant.name] = await self.tenants.change(
                    subjects.tenant_key(tenant.name), change
                )

    def _without_retired(self, tenant: Tenant, known: Tenant | None) -> Tenant:
        found = known or tenant
        return found.model_copy(update={"public_keys": self.members.keys_of(found, self.now())})

    async def settle(self) -> None:
        """Returns when the broker has taken all that is known here now. ConfigurationError if it does not."""
        async with self._one:
            block = self._block(self.members)
            if block == self.taken:
                return
            self._keep_file()
            names = self._names_now()
            await self._reload(block, not names <= self._names)
            self.taken, self._names = block, names

    def _names_now(self) -> set[str]:
        return {tenant.name for tenant in self.members.tenants_at(self.now())}

    def now(self) -> float:
        """The time by which invites and tenants run out."""
        return time.time()

    def _keep_file(self) -> None:
        new = self._path.with_suffix(".new")
        try:
            new.touch(0o600)
            new.write_bytes(self.members.kept.to_bytes())
            new.replace(self._path)
        except OSError as error:
            self._say(f"{self._path} cannot be written: {error.strerror}")


def _read(path: Path) -> Members:
    """What was kept; nothing if it cannot be read: the buckets have it."""
    try:
        return Members.of(KeptMembers.read(path.read_bytes()))
    except (OSError, ValidationError, ChoirError):
        return Members()
