"""Tenants and hosts as tables."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.table import Table

from schemas.message import Struct
from schemas.nodes.joining import Host
from schemas.requests.tenants import Tenant
from services.cli.views.terminal import plain


class TenantsDocument(Struct):
    """What `choir tenants list --json` prints."""

    tenants: tuple[Tenant, ...]


class HostsDocument(Struct):
    """What `choir hosts list --json` prints."""

    hosts: tuple[Host, ...]


def tenants_table(tenants: Iterable[Tenant]) -> Table:
    """One row for each: name, role, keys, limits."""
    table = _table(
        "tenant", "role", "keys", "in flight", "tokens/min", "batch", "connections", "weight", "state"
    )
    for tenant in tenants:
        limits = tenant.limits
        table.add_row(
            plain(tenant.name),
            tenant.role,
            str(len(tenant.public_keys)),
            *(
                "-" if limit is None else f"{limit:g}"
                for limit in (
                    limits.requests_in_flight,
                    limits.tokens_per_minute,
                    limits.batch_share,
                    limits.connections,
                )
            ),
            f"{tenant.weight:g}",
            _state(tenant),
        )
    return table


def _state(tenant: Tenant) -> str:
    if tenant.revoked_at_s is not None:
        return "revoked"
    return "let in" if tenant.is_valid(time.time()) else "expired"


def hosts_table(hosts: Iterable[Host]) -> Table:
    """One row for each: name, what it runs. One with a broker of a cluster may run everything."""
    table = _table("host", "runs", "may run", "state")
    for host in hosts:
        table.add_row(
            plain(host.name),
            ", ".join(plain(instance.name) for instance in host.instances) or "-",
            "a broker" if host.broker else ", ".join(host.services),
            "let in" if host.revoked_at_s is None else "revoked",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table
