"""The desk of a mesh: whoever holds an invite joins, and hosts that have joined tell of their processes.

Who asks is known by the subject, for the broker lets nobody else publish there. Replies go to the asker's own
inbox and to no other place: the supervisor may publish everywhere, and the asker names the reply subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.members.accounts_keeper import AccountsKeeper
from infra.members.members import keys_in_use
from schemas import catalog, subjects
from schemas.errors import ChoirError, InternalError, InvalidRequest, NotPermitted
from schemas.joining import Enrol, Enrolled, Host, HostedInstance, Invite, Join, Joined
from schemas.message import Message
from schemas.replies import ErrorReply
from schemas.tenants import Tenant
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import error_headers, parse

QUEUE = "supervisors"
"""Of several supervisors with a broker one takes each request."""

RequestT = TypeVar("RequestT", bound=Message)

log = get_logger("members.desk")


class Desk:
    """Answers on `choir.join.*` and `choir.host.*.enrol`.

    `reserved` are names of instances of this host, `serve` makes the queues of models.
    """

    def __init__(
        self,
        client: Client,
        keeper: AccountsKeeper,
        reserved: Iterable[str],
        serve: Callable[[tuple[str, ...]], Awaitable[None]],
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._reserved = frozenset(reserved)
        self._serve = serve
        self._one = asyncio.Lock()

    async def start(self) -> None:
        """From now on it answers."""
        await self._client.subscribe(subjects.ALL_JOINS, QUEUE, cb=self._on_join)
        await self._client.subscribe(subjects.ALL_ENROLS, QUEUE, cb=self._on_enrol)

    async def _on_join(self, msg: Msg) -> None:
        invite = subjects.invite_of(msg.subject)
        await self._answer(msg, subjects.joining_inbox(invite), Join, partial(self._join, invite))

    async def _on_enrol(self, msg: Msg) -> None:
        host = subjects.host_of(msg.subject)
        await self._answer(msg, subjects.host_inbox(host), Enrol, partial(self._enrol, host))

    async def _answer(
        self,
        msg: Msg,
        inbox: str,
        kind: type[RequestT],
        handle: Callable[[RequestT], Awaitable[Message]],
    ) -> None:
        """One after the other: each looks at what those before it have changed."""
        if not msg.reply.startswith(f"{inbox}."):
            log.warning(
                "dropped a request whose reply is to go elsewhere", reply=msg.reply, asked=msg.subject
            )
            return
        headers = None
        try:
            async with self._one:
                reply = await handle(parse(msg.data, kind))
        except ChoirError as error:
            reply, headers = ErrorReply(error=error.body()), error_headers(error)
        except Exception as error:
            log.exception("the desk failed")
            failure = InternalError(f"{type(error).__name__} at the desk of the mesh")
            reply, headers = ErrorReply(error=failure.body()), error_headers(failure)
        await self._client.publish(msg.reply, reply.to_bytes(), headers=headers)

    # --- joining ------------------------------------------------------------------------

    async def _join(self, invite_key: str, request: Join) -> Joined:
        keeper = self._keeper
        in_use = keys_in_use(keeper.members.hosts.values(), keeper.members.tenants.values())
        known = keeper.members.invites.get(invite_key)
        if request.public_key in in_use and (known is None or known.used_by != request.public_key):
            raise InvalidRequest(f"this key is already that of {in_use[request.public_key]}: make a new one")
        use = partial(self._used, request.public_key)
        invite = await keeper.invites.change(subjects.invite_key(invite_key), use)
        if invite.kind == "host":
            host = Host(
                name=invite.name,
                public_key=request.public_key,
                services=invite.services,
                created_at_s=keeper.now(),
            )
            host = await keeper.hosts.change(subjects.host_key(invite.name), partial(_new_host, host))
            keeper.members.hosts[host.name] = host
        else:
            change = partial(self._with_key, invite, request.public_key)
            tenant = await keeper.tenants.change(subjects.tenant_key(invite.name), change)
            keeper.members.tenants[tenant.name] = tenant
        keeper.members.invites[invite_key] = invite
        await keeper.settle()
        return Joined(name=invite.name, role=invite.role, services=invite.services)

    def _used(self, public_key: str, invite: Invite | None) -> Invite:
        """The invite, used by this key: once. The same key may come again, for a reply that was lost."""
        if invite is None:
            raise NotPermitted("this invite is known no more: have a new one made with `choir invite`")
        if invite.used_by == public_key:
            return invite
        if invite.used_by is not None:
            raise NotPermitted(
                "this invite has been used: it is good once. If that was not you, revoke "
                f"{invite.kind} {invite.name}; have a new one made with `choir invite`"
            )
        if self._keeper.now() >= invite.expires_at_s:
            raise NotPermitted("this invite has expired: have a new one made with `choir invite`")
        tenant = self._keeper.members.tenants.get(invite.name) if invite.rotates else None
        retires = () if tenant is None else tenant.public_keys
        used = {"used_by": public_key, "used_at_s": self._keeper.now(), "retires": retires}
        return invite.model_copy(update=used)

    def _with_key(self, invite: Invite, public_key: str, known: Tenant | None) -> Tenant:
        """The tenant of an invite: a new one, or one with a key more."""
        now_s = self._keeper.now()
        if known is not None and public_key in known.public_keys:
            return known
        if invite.rotates:
            if known is None or known.revoked_at_s is not None:
                raise NotPermitted(f"the tenant {invite.name} has been revoked: have it invited again")
            good = self._keeper.members.keys_of(known, now_s)
            return known.model_copy(update={"public_keys": (*good, public_key)})
        if known is not None and known.is_valid(now_s):
            raise InvalidRequest(
                f"there is a tenant {invite.name} already: `choir tenants rotate {invite.name}` gives it a "
                f"new "
                "key"
            )
        new = Tenant(name=invite.name, role=invite.role, public_keys=(public_key,), created_at_s=now_s)
        if known is None:
            return new
        return new.model_copy(update={"limits": known.limits, "weight": known.weight})

    # --- hosts --------------------------------------------------------------------------

    async def _enrol(self, name: str, request: Enrol) -> Enrolled:
        keeper = self._keeper
        self._check(name, request.instances)
        change = partial(_with_instances, request.instances)
        host = await keeper.hosts.change(subjects.host_key(name), change)
        if request.models:
            await self._serve(request.models)
        keeper.members.hosts[name] = host
        await keeper.settle()
        return Enrolled(instances=len(host.instances))

    def _check(self, name: str, instances: tuple[HostedInstance, ...]) -> None:
        """Raises what is wrong: nobody takes the name or the key of another, or runs what it may not."""
        members = self._keeper.members
        host = members.hosts.get(name)
        if host is None or host.revoked_at_s is not None:
            raise
            NotPermitted(f"the host {name} has been revoked: have it invited again with `choir invite host`")
        others = [each for each in members.hosts.values() if each.name != name and each.revoked_at_s is None]
        names = {instance.name: each.name for each in others for instance in each.instances}
        taken = keys_in_use(others, members.tenants.values()) | {host.public_key: f"the host {name}"}
        for field in ("name", "public_key"):
            values = [getattr(instance, field) for instance in instances]
            if len(set(values)) != len(values):
                raise InvalidRequest(f"two instances have one {field}", field=f"instances.{field}")
        for instance in instances:
            if instance.service not in host.services or not _is_service(instance.service):
                raise NotPermitted(
                    f"the host {name} was invited to run {', '.join(host.services)}, not {instance.service}: "
                    "take it out of its choir.toml, or invite it anew with --all-services",
                    field="instances.service",
                )
            if instance.name in self._reserved or instance.name in names:
                whose = names.get(instance.name, "the broker's host")
                raise InvalidRequest(
                    f"an instance is called {instance.name} on {whose} as well: give it another name",
                    field="instances.name",
                )
            if instance.public_key in taken:
                raise InvalidRequest(
                    f"the key of {instance.name} is already that of {taken[instance.public_key]}",
                    field="instances.public_key",
                )


def _is_service(name: str) -> bool:
    return any(access.service == name for access in catalog.ACCESS)


def _new_host(new: Host, known: Host | None) -> Host:
    if known is None or known.revoked_at_s is not None:
        return new
    if known.public_key == new.public_key:
        return known
    raise InvalidRequest(
        f"a host {new.name} has joined already: `choir hosts revoke {new.name}` first, or take another name"
    )


def _with_instances(instances: tuple[HostedInstance, ...], host: Host | None) -> Host:
    if host is None or host.revoked_at_s is not None:
        raise NotPermitted("this host has been revoked: have it invited again with `choir invite host`")
    return host.model_copy(update={"instances": instances})
