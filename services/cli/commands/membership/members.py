"""`choir tenants`, `choir hosts`: who belongs to the mesh, what they may, and who does no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.commands.membership.joining import TtlOption, make_line, show_line
from services.cli.shell.command_group import command_group
from services.cli.views.terminal import console, print_json

if TYPE_CHECKING:
    from infra.members.operations import Operations
    from schemas.requests.tenants import Tenant, TenantLimits
    from services.client.client import Choir

T = TypeVar("T")
TenantArgument = Annotated[str, typer.Argument(metavar="NAME", help="`choir tenants list` has them.")]
HostArgument = Annotated[str, typer.Argument(metavar="NAME", help="`choir hosts list` has them.")]


def _run(beside: Callable[[Operations], Awaitable[T]], elsewhere: Callable[[Choir], Awaitable[T]]) -> T:
    """`beside` the broker as its operator, and `elsewhere` as a client that may operate."""
    from infra.members.operations import operations, runs_broker
    from services.client.client import Choir as Client
    from services.client.finding.local_mesh import state_folder

    async def run() -> T:
        if runs_broker(state_folder()):
            async with operations(state_folder()) as mesh:
                return await beside(mesh)
        async with Client() as choir:
            return await elsewhere(choir)

    return asyncio.run(run())


def list_tenants(as_json: JsonFlag = False) -> None:
    """Show who may ask: role, limits, whether they are let in."""
    from schemas.requests.tenants import ManageTenants
    from services.cli.views.tables.members_view import TenantsDocument, tenants_table

    tenants = _run(lambda mesh: mesh.all_tenants(), lambda choir: choir.tenants(ManageTenants()))
    if as_json:
        print_json(TenantsDocument(tenants=tenants))
    elif tenants:
        console().print(tenants_table(tenants))
    else:
        console().print("no tenants but local; `choir invite person` lets somebody in")


def limit(
    name: TenantArgument,
    in_flight: Annotated[int | None, typer.Option("--in-flight", min=1, help="Requests at a time.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens-per-minute", min=1, help="Tokens.")] = None,
    batch_share: Annotated[
        float | None, typer.Option("--batch-share", min=0.001, max=1, help="Of the queue, for batch work.")
    ] = None,
    connections: Annotated[int | None, typer.Option("--connections", min=1, help="To one broker.")] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", min=0.001, help="Beside others in a queue.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="First take all limits away.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say how much a tenant may take; the rest stays as it is."""
    from schemas.requests.tenants import ManageTenants, TenantLimits
    from services.cli.views.tables.members_view import TenantsDocument, tenants_table
    from services.client.request_builder import build

    said = {
        "requests_in_flight": in_flight,
        "tokens_per_minute": tokens,
        "batch_share": batch_share,
        "connections": connections,
    }

    def limits(known: TenantLimits) -> TenantLimits:
        before = {} if none else known.model_dump()
        return TenantLimits.model_validate(
            {**before, **{key: value for key, value in said.items() if value is not None}}
        )

    async def elsewhere(choir: Choir) -> Tenant:
        known = {one.name: one.limits for one in await choir.tenants(ManageTenants())}
        changed = limits(known.get(name, TenantLimits()))
        request = build(ManageTenants, {"action": "limit", "name": name, "limits": changed, "weight": weight})
        return next(one for one in await choir.tenants(request) if one.name == name)

    tenant = _run(lambda mesh: mesh.limit(name, limits, weight), elsewhere)
    if as_json:
        print_json(TenantsDocument(tenants=(tenant,)))
    else:
        console().print(tenants_table((tenant,)))


def rotate(
    name: TenantArgument,
    ttl: TtlOption = "1h",
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="The old keys are good so long after that.")
    ] = "1h",
    as_json: JsonFlag = False,
) -> None:
    """Print a line by which a tenant gets a new key, with `choir join`. The old one is good until then, and
    for a while after."""
    from services.client.moment import span_s

    ttl_s, overlap_s = span_s(ttl, "ttl"), span_s(overlap, "overlap")
    show_line(
        make_line(kind="person", name=name, ttl_s=ttl_s, rotates=True, overlap_s=overlap_s), ttl, as_json
    )


def revoke(name: TenantArgument, as_json: JsonFlag = False) -> None:
    """Let a tenant in no more; its connections end within seconds. As JSON: the tenants as they are now."""
    from schemas.requests.tenants import ManageTenants
    from services.client.request_builder import build

    request = build(ManageTenants, {"action": "revoke", "name": name})
    _run(lambda mesh: mesh.revoke_tenant(name), lambda choir: choir.tenants(request))
    if as_json:
        list_tenants(as_json=True)
    else:
        typer.echo(f"{name} is let in no more")


def list_hosts(as_json: JsonFlag = False) -> None:
    """Show the hosts that have joined, and what they run."""
    from schemas.nodes.joining import ManageHosts
    from services.cli.views.tables.members_view import HostsDocument, hosts_table

    hosts = _run(lambda mesh: mesh.all_hosts(), lambda choir: choir.hosts(ManageHosts()))
    if as_json:
        print_json(HostsDocument(hosts=hosts))
    elif hosts:
        console().print(hosts_table(hosts))
    else:
        console().print("no other host has joined; `choir invite host` lets one in")


def revoke_host(name: HostArgument, as_json: JsonFlag = False) -> None:
    """Let a host in no more, nor any of its processes. As JSON: the hosts as they are now."""
    from schemas.nodes.joining import ManageHosts
    from services.client.request_builder import build

    request = build(ManageHosts, {"action": "revoke", "name": name})
    _run(lambda mesh: mesh.revoke_host(name), lambda choir: choir.hosts(request))
    if as_json:
        list_hosts(as_json=True)
    else:
        typer.echo(f"the host {name} is let in no more")


def build_tenants_app() -> typer.Typer:
    """`choir tenants` with its commands."""
    commands = (("list", list_tenants), ("limit", limit), ("rotate", rotate), ("revoke", revoke))
    return command_group(commands, "Who may ask, and how much: tenants, their limits and keys.")


def build_hosts_app() -> typer.Typer:
    """`choir hosts` with its commands."""
    commands = (("list", list_hosts), ("revoke", revoke_host))
    return command_group(commands, "The hosts that have joined the mesh.")
