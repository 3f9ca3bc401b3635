"""The routes between the brokers of a cluster: nobody takes part who is not of the cluster's authority."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from infra.broker.broker import Broker
from infra.broker.cluster import NAME, ROUTE_PORT_OFFSET, ROUTE_USER, Cluster
from infra.broker.local_cluster import free_ports
from infra.broker.tls.authority import Authority
from infra.broker.tls.names import LOOPBACK
from services.client.finding.broker_section import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "of-this-cluster"
HANG_UP_S = 60.0
"""nats-server gives a route two seconds to begin with TLS, and hangs up."""


@dataclass
class Routes:
    """One broker of three: where it waits for the other two, and the authority of all."""

    port: int
    authority: Authority

    def joins(self, context: ssl.SSLContext | None, secret: str = SECRET) -> bool:
        """Whether somebody is let in who says what a server of the cluster says."""
        connect = {"user": ROUTE_USER, "pass": secret, "name": "intruder", "cluster": NAME, "verbose": False}
        said = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), HANG_UP_S) as plain:
                way = plain if context is None else context.wrap_socket(plain, server_hostname="127.0.0.1")
                with way:
                    way.sendall(f"CONNECT {json.dumps(connect)}\r\nPING\r\n".encode())
                    while b"PONG" not in said and (block := way.recv(4096)):
                        said += block
        except (OSError, TimeoutError):  # it hangs up
            return False
        return b"PONG" in said


def of(authority: Authority, shown: Authority | None) -> ssl.SSLContext:
    """Trusts `authority`, and shows the certificate of `shown`."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if shown is not None:
        context.load_cert_chain(shown.files.certificate, shown.files.key)
    return context


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def routes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Routes]:
    folder = tmp_path_factory.mktemp("routes")
    authority = Authority(folder / "tls")
    authority.renew(LOOPBACK)
    servers = tuple(Server("127.0.0.1", port) for port in free_ports(3))
    cluster = Cluster(servers, servers[0], SECRET)
    async with Broker(folder / "broker", port=servers[0].port, tls=authority.files, cluster=cluster):
        yield Routes(servers[0].port + ROUTE_PORT_OFFSET, authority)


async def test_only_who_shows_a_certificate_of_the_authority_and_the_secret_is_a_server_of_the_cluster(
    routes: Routes, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign")
    foreign.renew(LOOPBACK)
    own = routes.authority
    intruders = {
        "in plain text": (None, SECRET),
        "without a certificate": (of(own, None), SECRET),
        "with one of another authority": (of(own, foreign), SECRET),
        "without the secret": (of(own, own), "guessed"),
    }
    for who, (context, secret) in intruders.items():
        assert not await asyncio.to_thread(routes.joins, context, secret), who
    assert await asyncio.to_thread(routes.joins, of(own, own))
