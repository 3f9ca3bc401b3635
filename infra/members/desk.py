"""The desk of a mesh: operators invite and limit, whoever holds an invite joins, and hosts that have joined
tell of their processes.

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

from infra.members.accounts_controller import AccountsController
from infra.members.inviting import Inviting, Whereabouts, check_new_key
from infra.members.members import keys_in_use
from infra.members.tenancy import limited, revoked, revoked_host
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import ChoirError, InternalError, InvalidRequest, NotPermitted
from schemas.message import Message
from schemas.nodes.joining import (
    Enrol,
    Enrolled,
    Host,
    HostedInstance,
    HostsReply,
    Invite,
    InviteMade,
    Join,
    Joined,
    MakeInvite,
    ManageHosts,
)
from schemas.replies import ErrorReply
from schemas.requests.keys import ApiKey
from schemas.requests.tenants import ManageTenants, Tenant, TenantsReply
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import is_inbox, parse
from services.chassis.nats.error_replies import error_headers
from services.chassis.registry.ensembles import Ensembles
from services.chassis.registry.shown_keys import ShownKeys
from services.chassis.telemetry.audit import emit_act
from services.chassis.telemetry.events import EventLog

QUEUE = "supervisors"
"""Of several supervisors with a broker one takes each request."""

RequestT = TypeVar("RequestT", bound=Message)

log = get_logger("members.desk")


class Desk:
    """Answers on `choir.join.*`, `choir.host.*.enrol`, and at tenants' doors and keyed ones `invite`,
    `tenants`, `hosts`.

    `reserved` are names of instances of this host, `serve` makes the queues of models, `where` says where
    others reach the broker (it raises ConfigurationError if they do not). `events` are told who changes what.
    """

    def __init__(
        self,
        client: Client,
        controller: AccountsController,
        reserved: Iterable[str],
        serve: Callable[[tuple[str, ...]], Awaitable[None]],
        where: Callable[[], Whereabouts],
        events: EventLog | None = None,
    ) -> None:
        self._client = client
        self._events = events
        self._controller = controller
        self._reserved = frozenset(reserved)
        self._serve = serve
        self._where = where
        self._one = asyncio.Lock()
        self._shown = ShownKeys(client)

    async def start(self) -> None:
        """From now on it answers."""
        await self._client.subscribe(subjects.ALL_JOINS, QUEUE, cb=self._on_join)
        await self._client.subscribe(subjects.ALL_ENROLS, QUEUE, cb=self._on_enrol)
        for spell in (subjects.doors, subjects.keyed_doors):
            await self._client.subscribe(spell(subjects.INVITE), QUEUE, cb=self._on_invite)
            await self._client.subscribe(spell(subjects.TENANTS), QUEUE, cb=self._on_tenants)
            await self._client.subscribe(spell(subjects.HOSTS), QUEUE, cb=self._on_hosts)

    async def _on_join(self, msg: Msg) -> None:
        invite = subjects.invite_of(msg.subject)
        own = msg.reply.startswith(f"{subjects.joining_inbox(invite)}.")
        await self._answer(msg, own, Join, partial(self._join, invite))

    async def _on_enrol(self, msg: Msg) -> None:
        host = subjects.host_of(msg.subject)
        own = msg.reply.startswith(f"{subjects.host_inbox(host)}.")
        await self._answer(msg, own, Enrol, partial(self._enrol, host))

    async def _on_invite(self, msg: Msg) -> None:
        tenant = subjects.tenant_at(msg.subject)
        await self._answer(msg, is_inbox(msg.reply), MakeInvite, partial(self._invite, tenant))

    async def _on_tenants(self, msg: Msg) -> None:
        tenant = subjects.tenant_at(msg.subject)
        await self._answer(msg, is_inbox(msg.reply), ManageTenants, partial(self._tenants, tenant))

    async def _on_hosts(self, msg: Msg) -> None:
        tenant = subjects.tenant_at(msg.subject)
        await self._answer(msg, is_inbox(msg.reply), ManageHosts, partial(self._hosts, tenant))

    async def _answer(
        self,
        msg: Msg,
        own_inbox: bool,
        kind: type[RequestT],
        handle: Callable[[RequestT], Awaitable[Message]],
    ) -> None:
        """One after the other: each looks at what those before it have changed."""
        if not own_inbox:
            log.warning(
                "dropped a request whose reply is to go elsewhere", reply=msg.reply, asked=msg.subject
            )
            return
        headers, request, key = None, None, None
        try:
            request = parse(msg.data, kind)
            if subjects.is_keyed(msg.subject):
                tenant, asked = subjects.tenant_at(msg.subject), subjects.asked_on(msg.subject)
                key = await self._shown.key_of((msg.headers or {}).get(subjects.API_KEY_HEADER))
                await self._shown.check(key, tenant, asked)
            async with self._one:
                reply = await handle(request)
                self._tell(msg, request, key)
        except ChoirError as error:
            reply, headers = _refusal(error)
            self._tell(msg, request, key, error)
        except Exception as error:
            log.exception("the desk failed")
            failure = InternalError(f"{type(error).__name__} at the desk of the mesh")
            reply, headers = _refusal(failure)
        await self._client.publish(msg.reply, reply.to_bytes(), headers=headers)

    def _tell(
        self, msg: Msg, request: Message | None, key: ApiKey | None, error: ChoirError | None = None
    ) -> None:
        if self._events is None or request is None:
            return
        endpoint, tenant = subjects.asked_on(msg.subject), subjects.tenant_at(msg.subject)
        key_id = None if key is None else key.id
        emit_act(self._events, request, endpoint=endpoint, tenant=tenant, key=key_id, error=error)

    # --- inviting -----------------------------------------------------------------------

    async def _invite(self, tenant: str, request: MakeInvite) -> InviteMade:
        """Only the tenants whose role opens this door come here. The same request may come again, for a reply
        that was lost."""
        controller, where = self._controller, self._where()
        invite = controller.members.invites.get(request.public_key)
        if invite is None or not _was_made_for(request, invite):
            check_new_key(request.public_key, controller.taken)
            invite = await Inviting(controller.tenants, controller.hosts, controller.invites).make(request)
            controller.members.invites[request.public_key] = invite
            await controller.settle()
            log.info(
                "made an invite", tenant=tenant, invited=request.kind, name=request.name, role=invite.role
            )
        return InviteMade(expires_at_s=invite.expires_at_s, addresses=where.addresses, ca=where.ca)

    async def _tenants(self, operator: str, request: ManageTenants) -> TenantsReply:
        """Only the tenants whose role opens this door come here."""
        controller, name = self._controller, request.name
        if name is not None:
            if request.limits is not None:
                said = request.limits
                changed = await limited(controller.tenants, name, lambda _before: said, request.weight)
            else:
                changed = await revoked(controller.tenants, name)
            controller.members.tenants[name] = changed
            await controller.settle()
            log.warning("changed a tenant", tenant=name, action=request.action, by=operator)
        return TenantsReply(tenants=tuple(one for _, one in sorted(controller.members.tenants.items())))

    async def _hosts(self, operator: str, request: ManageHosts) -> HostsReply:
        """The same for hosts."""
        controller, name = self._controller, request.name
        if name is not None:
            controller.members.hosts[name] = await revoked_host(controller.hosts, name)
            await controller.settle()
            await Ensembles(self._client).declare(name, ())
            log.warning("revoked a host", host=name, by=operator)
        return HostsReply(hosts=tuple(one for _, one in sorted(controller.members.hosts.items())))

    # --- joining ------------------------------------------------------------------------

    async def _join(self, invite_key: str, request: Join) -> Joined:
        controller = self._controller
        in_use = keys_in_use(controller.members.hosts.values(), controller.members.tenants.values())
        known = controller.members.invites.get(invite_key)
        if known is None or known.used_by != request.public_key:
            if request.public_key in in_use:
                whose = in_use[request.public_key]
                raise InvalidRequest(f"this key is already that of {whose}: make a new one")
            check_new_key(request.public_key, controller.taken)
        use = partial(self._used, request.public_key)
        invite = await controller.invites.change(subjects.invite_key(invite_key), use)
        if invite.kind == "host":
            host = Host(
                name=invite.name,
                public_key=request.public_key,
                services=invite.services,
                created_at_s=controller.now(),
            )
            host = await controller.hosts.change(subjects.host_key(invite.name), partial(_new_host, host))
            controller.members.hosts[host.name] = host
        else:
            change = partial(self._with_key, invite, request.public_key)
            tenant = await controller.tenants.change(subjects.tenant_key(invite.name), change)
            controller.members.tenants[tenant.name] = tenant
        controller.members.invites[invite_key] = invite
        await controller.settle()
        servers = self._where().servers
        return Joined(name=invite.name, role=invite.role, services=invite.services, servers=servers)

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
        if self._controller.now() >= invite.expires_at_s:
            raise NotPermitted("this invite has expired: have a new one made with `choir invite`")
        tenant = self._controller.members.tenants.get(invite.name) if invite.rotates else None
        retires = () if tenant is None else tenant.public_keys
        used = {"used_by": public_key, "used_at_s": self._controller.now(), "retires": retires}
        return invite.model_copy(update=used)

    def _with_key(self, invite: Invite, public_key: str, known: Tenant | None) -> Tenant:
        """The tenant of an invite: a new one, or one with a key more."""
        now_s = self._controller.now()
        if known is not None and public_key in known.public_keys:
            return known
        if invite.rotates:
            if known is None or known.revoked_at_s is not None:
                raise NotPermitted(f"the tenant {invite.name} has been revoked: have it invited again")
            good = self._controller.members.keys_of(known, now_s)
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
        controller = self._controller
        await self._look_up(name)
        self._check(name, request.instances)
        change = partial(_with_instances, _narrowed(request))
        host = await controller.hosts.change(subjects.host_key(name), change)
        if request.models:
            await self._serve(request.models)
        controller.members.hosts[name] = host
        await controller.settle()
        problems = await Ensembles(self._client).declare_if_possible(name, request.ensembles)
        return Enrolled(instances=len(host.instances), problems=problems)

    async def _look_up(self, name: str) -> None:
        """A host that has just joined at the desk of another broker may not have been heard of here yet."""
        if name not in self._controller.members.hosts:
            found = (await self._controller.hosts.get(subjects.host_key(name))).value
            if found is not None:
                self._controller.members.hosts[name] = found

    def _check(self, name: str, instances: tuple[HostedInstance, ...]) -> None:
        """Raises what is wrong: nobody takes the name or the key of another, or runs what it may not."""
        members = self._controller.members
        host = members.hosts.get(name)
        if host is None or host.revoked_at_s is not None:
            raise NotPermitted(
                f"the host {name} has been revoked: have it invited again with `choir invite host`"
            )
        others = [each for each in members.hosts.values() if each.name != name and each.revoked_at_s is None]
        names = {instance.name: each.name for each in others for instance in each.instances}
        taken = keys_in_use(others, members.tenants.values()) | {host.public_key: f"the host {name}"}
        own = {instance.public_key for instance in host.instances}
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
            if instance.public_key not in own:
                check_new_key(instance.public_key, self._controller.taken)


def _refusal(error: ChoirError) -> tuple[ErrorReply, dict[str, str]]:
    reply = ErrorReply(error=error.body())
    return reply, {subjects.KIND_HEADER: reply.kind} | error_headers(error)


def _was_made_for(request: MakeInvite, invite: Invite) -> bool:
    """Whether an invite that nobody has used yet was made for this request."""
    same = (request.kind, request.name, request.rotates) == (invite.kind, invite.name, invite.rotates)
    of_role = invite.kind == "host" or invite.rotates or invite.role == request.role
    return same and invite.used_by is None and of_role


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


def _narrowed(request: Enrol) -> tuple[HostedInstance, ...]:
    """What an earlier Choir tells of an agent that takes workers in the words of this one: it does not say
    which models are the agent's own, so all that the host serves are."""
    return tuple(
        each.model_copy(update={"models": request.models, "takes_workers": True})
        if each.models is None
        else each
        for each in request.instances
    )


def _with_instances(instances: tuple[HostedInstance, ...], host: Host | None) -> Host:
    if host is None or host.revoked_at_s is not None:
        raise NotPermitted("this host has been revoked: have it invited again with `choir invite host`")
    return host.model_copy(update={"instances": instances})
