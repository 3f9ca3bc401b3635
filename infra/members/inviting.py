"""Making invites: who may be let in under which name, and what the line of an invite says of the mesh."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from infra.members.tenancy import existing
from schemas import subjects
from schemas.broker.catalog import ACCESS, INVITES_KEPT_S
from schemas.errors import ConfigurationError, InvalidRequest
from schemas.nodes.joining import WORKING_SERVICES, Host, Invite, MakeInvite
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import Bucket
from services.client.finding.invite_line import InviteLine
from services.client.finding.inviting import line_of

LONGEST_S = INVITES_KEPT_S / 2


@dataclass(frozen=True)
class Whereabouts:
    """Where other hosts reach the broker, and the certificate (PEM) of its authority; None if their systems
    know it. `servers` are the addresses of all brokers of a cluster."""

    addresses: tuple[str, ...]
    ca: str | None = None
    servers: tuple[str, ...] = ()

    @classmethod
    def of(cls, addresses: tuple[str, ...], ca: str | None, servers: tuple[str, ...] = ()) -> Whereabouts:
        """Those of a broker; `ca` is a file. ConfigurationError if nobody else reaches it."""
        if not addresses:
            raise ConfigurationError(
                "the broker listens on its own host alone, so nobody else can join: stop the mesh, and start "
                "it with "
                "`choir up --listen 0.0.0.0` (or an address of that host)"
            )
        return cls(addresses, None if ca is None else _text(Path(ca)), servers)

    def line(self, invite: MakeInvite | Invite, seed: str) -> InviteLine:
        """The line of an invite. `seed` is the secret half of its key. ConfigurationError if the certificate
        cannot be read."""
        return line_of(invite, seed, self.addresses, self.ca)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no certificate that can be read") from error


class Inviting:
    """Writes invites into their bucket, for supervisors that run a broker, and for the operator."""

    def __init__(self, tenants: Bucket[Tenant], hosts: Bucket[Host], invites: Bucket[Invite]) -> None:
        self._tenants = tenants
        self._hosts = hosts
        self._invites = invites

    async def make(self, request: MakeInvite) -> Invite:
        """The invite that somebody wishes, stored. InvalidRequest names what is wrong with it."""
        if request.kind == "host":
            await self._check_host(request.name)
            services = (
                tuple(access.service for access in ACCESS) if request.all_services else WORKING_SERVICES
            )
            return await self.put(request.ttl_s, **_of(request), services=services)
        if request.rotates:
            known = (await self._tenants.get(subjects.tenant_key(request.name))).value
            role = existing(request.name, known).role
            return await self.put(
                request.ttl_s, **_of(request), role=role, rotates=True, overlap_s=request.overlap_s
            )
        await self._check_person(request.name)
        return await self.put(request.ttl_s, **_of(request), role=request.role)

    async def put(self, ttl_s: float, **fields: object) -> Invite:
        """An invite of these fields, stored. InvalidRequest if it is to be good for too long."""
        if not 0 < ttl_s <= LONGEST_S:
            raise InvalidRequest(f"an invite is good for at most {LONGEST_S / 86_400:g} days", field="ttl_s")
        now_s = time.time()
        invite = Invite.model_validate({"created_at_s": now_s, "expires_at_s": now_s + ttl_s, **fields})
        await self._invites.put(subjects.invite_key(invite.public_key), invite)
        return invite

    async def _check_host(self, name: str) -> None:
        known = (await self._hosts.get(subjects.host_key(name))).value
        if known is not None and known.revoked_at_s is None:
            raise InvalidRequest(
                f"a host {name} has joined already: `choir hosts revoke {name}` first, or take another name",
                field="name",
            )

    async def _check_person(self, name: str) -> None:
        known = (await self._tenants.get(subjects.tenant_key(name))).value
        if name == subjects.LOCAL_TENANT or (known is not None and known.is_valid(time.time())):
            raise InvalidRequest(
                f"there is a tenant {name} already: take another name, or `choir tenants rotate {name}` for "
                "a new key",
                field="name",
            )


def _of(request: MakeInvite) -> dict[str, object]:
    return {"kind": request.kind, "name": request.name, "public_key": request.public_key}


def check_new_key(public_key: str, known: Collection[str] | str) -> None:
    """InvalidRequest if somebody in the mesh, be it an invite, has this key: a broker takes each once."""
    if public_key in known:
        raise InvalidRequest("this key is known already: make a new one", field="public_key")
