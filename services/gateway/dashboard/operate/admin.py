"""Who may ask and who takes part: tenants and their limits, API keys (shown once), hosts, and how others
join."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.broker.catalog import ROLES, Role
from schemas.errors import NotPermitted
from schemas.message import Name
from schemas.nodes.joining import HostName, InviteKind, ManageHosts
from schemas.requests.keys import (
    KEY_SCOPES,
    USUAL_SCOPES,
    ApiKey,
    KeyId,
    KeyLimits,
    KeyScope,
    Label,
    ManageKeys,
    digest_of,
    new_secret,
)
from schemas.requests.tenants import ManageTenants, Tenant, TenantLimits, TenantName
from schemas.subjects import LOCAL_TENANT, PRIORITIES, Priority
from services.client.client import Choir
from services.client.finding.inviting import invite_from_elsewhere
from services.client.request_builder import build
from services.gateway.access.caller import current_caller
from services.gateway.dashboard.shell.forms import Form, told
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.http.body import takes
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 2.0
DAY_S, HOUR_S = 86_400.0, 3_600.0
ENDING = 4
TOLD = {"limit": "{} has these limits now", "revoke": "{} is let in no more"}
DONE = {"revoke": "{} opens nothing any more", "remove": "{} is forgotten"}


class NewKey(Form):
    """A key that is to be made."""

    label: Label = ""
    tenant: Name = LOCAL_TENANT
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)] = USUAL_SCOPES
    models: Annotated[tuple[Name, ...], Field(max_length=200)] = ()
    limits: KeyLimits = KeyLimits()
    priority: Priority = "interactive"
    days: Annotated[float, Field(gt=0, le=3_650)] | None = None


class KeyEnd(Form):
    """A key that is to open nothing any more, or to be forgotten."""

    id: KeyId
    action: Literal["revoke", "remove"]


class NewInvite(Form):
    """Who is to come in by a line."""

    kind: InviteKind
    name: TenantName
    role: Role = "ask"
    hours: Annotated[float, Field(gt=0)] = 1.0
    all_services: bool = False


class TenantChange(Form):
    """What a tenant may take from now on, or that it is let in no more."""

    name: TenantName
    action: Literal["limit", "revoke"]
    limits: TenantLimits = TenantLimits()
    weight: Annotated[float, Field(gt=0, le=1000)] | None = None


class HostEnd(Form):
    """A host that is to be let in no more."""

    name: HostName


class AdminPage:
    """Shows who may do what, and changes it."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, _request: Request) -> Response:
        """All tenants. Keys and hosts come a moment later: who knows them may be away."""
        return self._frame.page(
            "operate/admin.html.j2",
            "admin",
            "/dashboard/live/admin",
            tenants=self._tenants(),
            known=self._frame.context.keyring.tenants.known,
            scopes=KEY_SCOPES,
            usual=USUAL_SCOPES,
            roles=ROLES,
            priorities=PRIORITIES,
        )

    async def live(self, _request: Request) -> StreamedReply:
        """Who comes and goes."""
        mesh = self._frame.context.mesh

        async def look() -> dict[str, str]:
            keys, hosts = await asyncio.gather(self._keys(), _hosts(mesh))
            return {"keys": keys, "hosts": hosts, "tenants": self._tenants()}

        return self._frame.live("admin", look, LOOK_EVERY_S, for_operators=True)

    @takes(NewKey)
    async def add_key(self, request: Request) -> Response:
        """Makes a key. Its secret is in this reply and nowhere else: the mesh keeps a digest of it.

        Raises NotPermitted if it could do more than the key that asks for it.
        """
        body = await self._frame.said(request, NewKey)
        key_id, now_s = f"k-{secrets.token_hex(4)}", self._frame.context.now()
        secret = new_secret(key_id)
        key = build(
            ApiKey,
            {
                **body.model_dump(exclude={"days"}),
                "id": key_id,
                "digest": digest_of(secret),
                "ending": secret[-ENDING:],
                "created_at_s": now_s,
                "expires_at_s": None if body.days is None else now_s + body.days * DAY_S,
            },
        )
        own = current_caller.get().key
        if own is not None and (field := own.exceeded_by(key)) is not None:
            raise NotPermitted(f"{field}: a key makes none that may do more than itself", field=field)
        await self._frame.context.mesh.keys(ManageKeys(action="add", key=key))
        html = fragment("operate/secret.html.j2", secret=secret, key=key)
        return done("made; its secret is shown this once", html=html, put={"keys": await self._keys()})

    @takes(KeyEnd)
    async def end_key(self, request: Request) -> Response:
        """Revokes a key, or forgets it."""
        body = await self._frame.said(request, KeyEnd)
        await self._frame.context.mesh.keys(build(ManageKeys, body.model_dump()))
        return done(DONE[body.action].format(body.id), put={"keys": await self._keys()})

    @takes(NewInvite)
    async def invite(self, request: Request) -> Response:
        """Makes the line by which a host or a person joins. Its secret is in this reply and nowhere else."""
        body = await self._frame.said(request, NewInvite)
        fields = body.model_dump(exclude={"hours"})
        line = await invite_from_elsewhere(self._frame.context.mesh, ttl_s=body.hours * HOUR_S, **fields)
        html = fragment("operate/line.html.j2", line=line, hours=body.hours)
        return done("made; it is shown this once", html=html)

    @takes(TenantChange)
    async def change_tenant(self, request: Request) -> Response:
        """Limits a tenant, or lets it in no more. Raises InvalidRequest if there is none of that name."""
        body = await self._frame.said(request, TenantChange)
        limits = {"limits": body.limits.model_dump(), "weight": body.weight} if body.action == "limit" else {}
        change = build(ManageTenants, {"action": body.action, "name": body.name, **limits})
        all_of_them = await self._frame.context.mesh.tenants(change)
        now_s = self._frame.context.now()
        html = _tenants_html([tenant for tenant in all_of_them if tenant.is_valid(now_s)])
        return done(TOLD[body.action].format(body.name), put={"tenants": html})

    @takes(HostEnd)
    async def revoke_host(self, request: Request) -> Response:
        """Lets a host in no more, nor any of its processes. Raises InvalidRequest if there is none of that
        name."""
        body = await self._frame.said(request, HostEnd)
        mesh = self._frame.context.mesh
        await mesh.hosts(build(ManageHosts, {"action": "revoke", "name": body.name}))
        return done(f"the host {body.name} is let in no more", put={"hosts": await _hosts(mesh)})

    def _tenants(self) -> str:
        return _tenants_html(self._frame.context.keyring.tenants.known)

    async def _keys(self) -> str:
        keys, problem = await told(partial(self._frame.context.mesh.keys, ManageKeys()), ())
        return fragment("operate/keys.html.j2", keys=keys, problem=problem)


def _tenants_html(tenants: Sequence[Tenant]) -> str:
    return fragment("operate/tenants.html.j2", tenants=tenants)


async def _hosts(mesh: Choir) -> str:
    (hosts, problem), (nodes, _) = await asyncio.gather(
        told(partial(mesh.hosts, ManageHosts()), ()), told(mesh.nodes, ())
    )
    here = {node.instance for node in nodes}
    return fragment("operate/hosts.html.j2", hosts=hosts, here=here, problem=problem)
