"""The accounts of the broker, as a block for nats-server's configuration.

Services live in the account CHOIR, where JetStream is, each instance as a user of its own. Clients live in
accounts of their own, one for each tenant, and reach CHOIR only through service imports: what alice publishes
on `choir.ask` arrives at `choir.door.alice.ask`, so that who asks is the broker's word. A role is the set of
doors that a tenant's account imports. What has one reply is exported as `singleton`, what streams as
`chunked`: the broker forgets such a request when an empty message ends its replies. (`stream` keeps each for
good.)

`choir up` writes this for its own broker. Where services and clients share one account of a broker that runs
already, it leads everybody to the doors of the tenant `local`:

    python -m infra.broker.access.accounts > choir.conf

and `include choir.conf` in its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import typer

from infra.broker.access.permissions import (
    INBOXES,
    SERVICES_API,
    Scope,
    host_permissions,
    invite_permissions,
    scope_of,
    service_permissions,
)
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import Access
from schemas.nodes.joining import Host
from schemas.requests.tenants import Tenant

INSIDE = "CHOIR"
"""The account of the services."""
ANONYMOUS = "anonymous"
"""The user who comes without credentials."""
TENANT_TOKEN = 3
"""Where in a door's subject the tenant stands, counted from 1."""


@dataclass(frozen=True)
class ServiceUser:
    """One instance of a service, by its public key."""

    access: Access
    scope: Scope
    public_key: str


@dataclass(frozen=True)
class Insider:
    """Who may do everything inside with a user and a password: supervisors and clients of other hosts."""

    user: str
    password: str


def accounts(
    operator_key: str,
    services: Iterable[ServiceUser],
    tenants: Iterable[Tenant],
    insider: Insider | None = None,
    anonymous: str | None = None,
    hosts: Iterable[Host] = (),
    invites: Iterable[str] = (),
    worker_models: Iterable[str] | None = None,
) -> str:
    """The block with all accounts. `operator_key` is the public key of who may do everything inside; whoever
    comes without credentials is the tenant `anonymous`. `hosts` have joined; `invites` are public keys;
    `worker_models` are those that workers are registered for."""
    tenants = tuple(tenants)
    listeners = () if insider is None else (insider.user, catalog.CLIENT_USER)
    inside: list[dict[str, Any]] = [{"nkey": operator_key}]
    if insider is not None:
        inside.append({"user": insider.user, "password": insider.password})
    inside += [
        {
            "nkey": service.public_key,
            "permissions": service_permissions(service.access, service.scope, listeners),
        }
        for service in services
    ]
    # A host of a cluster finds itself there too: what runs here is known already.
    others = [host for host in hosts if host.public_key != operator_key]
    inside += [user for host in others for user in _users_of(host, listeners, worker_models)]
    inside += [{"nkey": key, "permissions": invite_permissions(key)} for key in invites]
    choir = {
        "jetstream": "enabled",
        "users": inside,
        "mappings": catalog.door_mappings(),
        "exports": _exports(),
    }
    outside = {each.name: _outside(each, each.name == anonymous) for each in tenants}
    block: dict[str, Any] = {"accounts": {INSIDE: choir} | outside}
    if anonymous in outside:
        block["no_auth_user"] = ANONYMOUS
    # JSON is valid in nats-server's configuration.
    return "\n".join(f"{name}: {json.dumps(value, indent=1)}" for name, value in block.items()) + "\n"


def _users_of(
    host: Host, listeners: Iterable[str], worker_models: Iterable[str] | None
) -> Iterable[dict[str, Any]]:
    """A host that has joined: its supervisor, and its processes, as if they ran here; but that its gateway
    wants no keys is its own word, and opens nothing here. The supervisor of one with a broker has nothing to
    do at another."""
    if not host.broker:
        yield {"nkey": host.public_key, "permissions": host_permissions(host.name)}
    access_of = {access.service: access for access in catalog.ACCESS}
    for instance in host.instances:
        if instance.service in access_of and instance.service in host.services:
            scope = scope_of(
                instance.name,
                instance.models,
                instance.takes_workers,
                worker_models,
                keyless=host.broker and instance.keyless,
            )
            rights = service_permissions(access_of[instance.service], scope, listeners)
            yield {"nkey": instance.public_key, "permissions": rights}


def _exports() -> list[dict[str, Any]]:
    """What tenants may import: endpoint by endpoint, for of two exports that overlap any one would count."""
    doors = [
        {
            "service": endpoint.doors,
            "account_token_position": TENANT_TOKEN,
            "response_type": _kind(endpoint.streams),
        }
        for endpoint in catalog.ENDPOINTS
    ]
    return [*doors, {"service": SERVICES_API, "response_type": _kind(True)}]


def _kind(streams: bool) -> str:
    return "chunked" if streams else "singleton"


def _outside(tenant: Tenant, anonymous: bool) -> dict[str, Any]:
    """A tenant's account: a user for each of its keys, and the doors that its role opens."""
    endpoints = catalog.endpoints_of(tenant.role)
    imports: list[dict[str, Any]] = [
        {
            "service": {"account": INSIDE, "subject": subjects.door(tenant.name, endpoint.subject)},
            "to": endpoint.subject,
        }
        for endpoint in endpoints
    ]
    asks = [endpoint.subject for endpoint in endpoints]
    if tenant.role != "ask":
        imports.append({"service": {"account": INSIDE, "subject": SERVICES_API}})
        asks.append(SERVICES_API)
    inboxes = [f"{subjects.inbox_prefix(name)}.>" for name in (catalog.CLIENT_USER, tenant.name)]
    permissions = {"publish": asks, "subscribe": [INBOXES, *inboxes]}
    users = [{"nkey": key} for key in tenant.public_keys] + ([{"user": ANONYMOUS}] if anonymous else [])
    account: dict[str, Any] = {
        "users": [{**user, "permissions": permissions} for user in users],
        "imports": imports,
    }
    if tenant.limits.connections is not None:
        account["limits"] = {"max_connections": tenant.limits.connections}
    return account


def one_account() -> str:
    """The block where services and clients share one account: what is asked goes to the door of `local`."""
    return f"mappings: {json.dumps(catalog.door_mappings(), indent=2)}\n"


def main() -> None:
    """Print the block that a broker of one account needs so that clients reach the services."""
    typer.echo(one_account(), nl=False)


if __name__ == "__main__":
    typer.run(main)
