"""A cluster of brokers: one on each of three hosts, each with a copy of every stream.

`[broker] cluster` is the same list on all hosts: where clients reach each of the servers. The servers reach
one another at a port of their own, ROUTE_PORT_OFFSET above that, and prove by a secret that they belong
together: all hosts have it by `choir invite broker`, or derive it from the password of
`[mesh]`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from infra.broker.tls.authority import TlsFiles
from schemas.errors import ConfigurationError
from services.chassis.nats.connecting.address import is_loopback
from services.chassis.settings import MeshSection
from services.client.finding.broker_section import BrokerSection, Server

ROUTE_PORT_OFFSET = 2000
"""From the port for clients to the port for other servers: 4222 and 6222, as NATS has them by custom."""
NAME = "choir"
ROUTE_USER = "choir-route"


@dataclass(frozen=True)
class Cluster:
    """The servers of a cluster, which of them runs here, and the secret that they share."""

    servers: tuple[Server, ...]
    own: Server
    secret: str

    @property
    def server_name(self) -> str:
        """The name by which the others know this server again: copies of streams belong to names."""
        return f"choir-{self.own.host}-{self.own.port}".replace(":", "-").replace(".", "-")

    def urls(self, scheme: str = "nats") -> tuple[str, ...]:
        """Where clients reach the servers, the one of this host first."""
        others = (server for server in self.servers if server != self.own)
        return tuple(f"{scheme}://{server}" for server in (self.own, *others))

    def block(self, listen_host: str, tls: TlsFiles | None = None) -> str:
        """The part of nats-server's configuration that makes one cluster of the servers.

        With `tls` they prove by certificates of one authority, in both directions, that they belong together.
        """
        routes = [
            f"nats-route://{ROUTE_USER}:{self.secret}@{_route(one)}"
            for one in self.servers
            if one != self.own
        ]
        cluster: dict[str, Any] = {
            "name": NAME,
            "listen": str(Server(listen_host, self.own.port + ROUTE_PORT_OFFSET)),
            "authorization": {"user": ROUTE_USER, "password": self.secret},
            "routes": routes,
        }
        if tls is not None:
            files = {"cert_file": str(tls.certificate), "key_file": str(tls.key)}
            authority = {} if tls.ca is None else {"ca_file": str(tls.ca)}
            cluster["tls"] = {**files, **authority, "verify": True}
        return f"client_advertise: {json.dumps(str(self.own))}\ncluster: {json.dumps(cluster, indent=1)}\n"


def _route(server: Server) -> Server:
    return Server(server.host, server.port + ROUTE_PORT_OFFSET)


def cluster_of(section: BrokerSection, mesh: MeshSection, kept_secret: str | None = None) -> Cluster | None:
    """The cluster that `[broker]` speaks of; None if it speaks of none. `kept_secret` is the one of the line.

    ConfigurationError says what is wrong.
    """
    if not section.cluster:
        return None
    secret = route_secret(mesh, kept_secret)
    if secret is None:
        raise ConfigurationError(
            "broker.cluster: the servers have to prove that they belong together: type `choir invite broker` "
            "on one of the hosts, and `choir join` with the line that it prints on each of the others; or "
            "set the same user and password in section [mesh] on every host",
            field="broker.cluster",
        )
    return Cluster(section.servers, own_server(section.servers, section.host, section.port), secret)


def route_secret(mesh: MeshSection, kept: str | None) -> str | None:
    """By what the servers know one another: the secret of the password that all hosts have, else the one that
    is `kept` here."""
    if mesh.password:
        return hmac.new(mesh.password.encode(), b"choir routes", hashlib.sha256).hexdigest()
    return kept


def own_server(
    servers: Sequence[Server], host: str, port: int, is_here: Callable[[str], bool] | None = None
) -> Server:
    """Which of the servers runs on this host: the one at `port` that is `host`, or an address of this
    host."""
    is_here = is_here or _is_here
    at_port = [server for server in servers if server.port == port]
    named = [server for server in at_port if server.host == host]
    found = named or [server for server in at_port if is_here(server.host)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, servers))
    what = "none of them" if not found else "more than one of them"
    raise ConfigurationError(
        f"broker.cluster is {listed}, and {what} is this host at port {port}: name each host once, with the "
        "address and the port by which the others reach it, and set the same port in section [broker]",
        field="broker.cluster",
    )


def _is_here(host: str) -> bool:
    """Whether a name or an address is one of this host's own."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    own = {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    }
    return any(is_loopback(address) or address in own for address in found)
