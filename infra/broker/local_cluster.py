"""Three brokers on this host that are one cluster: for tests and measurements, where three hosts are not at
hand."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import nats
import nats.errors
from nats.aio.client import Client
from nats.js.api import StreamInfo

from infra.broker.broker import FREE_PORTS, LOOPBACK, PORT_ATTEMPTS, Broker
from infra.broker.cluster import ROUTE_PORT_OFFSET, Cluster
from infra.broker.streams.agreement import agreed
from schemas.errors import ConfigurationError, MeshUnreachable
from services.client.finding.broker_section import Server

AGREE_DEADLINE_S = 60.0
HIGHEST = FREE_PORTS.stop - ROUTE_PORT_OFFSET - 1


class LocalCluster:
    """Brokers in folders of their own in `folder`; as a context they are started, and agree on a leader."""

    def __init__(
        self, folder: Path, size: int = 3, *, secret: str = "of-this-cluster", more_config: str = ""
    ) -> None:
        servers = tuple(Server(LOOPBACK, port) for port in free_ports(size))
        self.brokers = [
            Broker(
                folder / f"broker-{number}",
                port=server.port,
                cluster=Cluster(servers, server, secret),
                more_config=more_config,
            )
            for number, server in enumerate(servers, start=1)
        ]

    @property
    def url(self) -> str:
        """The addresses of all brokers."""
        return ",".join(broker.url for broker in self.brokers)

    async def __aenter__(self) -> LocalCluster:
        try:
            await asyncio.gather(*(broker.start() for broker in self.brokers))
            client = await connect(self.url)
            try:
                if not await agreed(client, len(self.brokers), AGREE_DEADLINE_S):
                    raise MeshUnreachable(f"the brokers have not agreed within {AGREE_DEADLINE_S:.0f} s")
            finally:
                await client.close()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends those that run."""
        await asyncio.gather(*(broker.stop() for broker in self.brokers))

    def named(self, server: str) -> Broker:
        """The broker that the servers call so."""
        return next(broker for broker in self.brokers if broker.server_name == server)

    def leader(self, info: StreamInfo) -> Broker:
        """The broker that leads a stream."""
        assert info.cluster is not None and info.cluster.leader, info
        return self.named(info.cluster.leader)


async def connect(url: str) -> Client:
    """A client that goes from broker to broker, and never gives up."""

    async def failed(_error: Exception) -> None:
        """One of several brokers is gone: that is what they are several for."""

    return await nats.connect(
        url.split(","),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        connect_timeout=5,
        error_cb=failed,
        dont_randomize=True,
    )


def free_ports(count: int) -> Sequence[int]:
    """Ports that are free, with those of the routes beside them. ConfigurationError if there are none."""
    found: list[int] = []
    for port in random.sample(range(FREE_PORTS.start, HIGHEST), PORT_ATTEMPTS):
        if len(found) < count and _is_free(port) and _is_free(port + ROUTE_PORT_OFFSET):
            found.append(port)
    if len(found) < count:
        raise ConfigurationError("no free ports were found for the brokers")
    return found


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to nobody who asks for any."""
    (port,) = free_ports(1)
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
