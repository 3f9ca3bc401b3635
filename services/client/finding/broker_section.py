"""`[broker]` of choir.toml: read by `choir up`, and by clients that look for the broker on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator

from schemas.broker import catalog
from services.chassis.nats.connecting.address import host_and_port
from services.chassis.settings import Section

MAX_PAYLOAD_LIMIT = 64 * catalog.MIB
"""nats-server refuses to start above it."""
HIGHEST_PORT = 65_535 - 2000
"""The servers of a cluster reach one another 2000 above the port for clients."""


CLUSTER_SIZES = (3, 5)
"""Fewer servers cannot tell who is missing, and an even number is no better than one less."""


class Server(NamedTuple):
    """One broker of a cluster, as clients reach it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(text: str) -> str:
    host_and_port(text)
    return text


class BrokerTlsSection(Section):
    """`[broker.tls]`: certificates of your own instead of those of the mesh's own authority.

    PEM files, relative to choir.toml. `certificate` is for one of `[broker] addresses`, with whatever is
    between it and its authority; `ca` is the authority's, and without it clients look into what their system
    trusts.
    """

    certificate: Path
    key: Path
    ca: Path | None = None


class BrokerSection(Section):
    """`[broker]`: the broker that `choir up` starts on this host.

    With `embedded = false` none is started, and `[mesh] url` says where one is. `port` 0 takes a free
    one. `store_dir` is relative to choir.toml; by default it is `broker` in the state folder.
    On any `host` but loopback it speaks TLS alone. `addresses` are names and addresses at which others reach
    it, besides those that it finds itself: they stand in its certificate, and in the lines of invites.
    With less than `min_free_bytes` free on its disk, `choir up` and `choir status` warn.
    `cluster` names the brokers of three (or five) hosts, this one among them, as clients reach them: together
    they are one broker, which one of them may leave. `replicas` is how many of them keep a copy of what has
    to survive; without it three do wherever the broker is a cluster.
    """

    embedded: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=4222, ge=0, le=65_535)
    addresses: tuple[Annotated[str, AfterValidator(_address)], ...] = ()
    tls: BrokerTlsSection | None = None
    store_dir: Path | None = None
    max_payload: int = Field(default=catalog.MIB, ge=64 * 1024, le=MAX_PAYLOAD_LIMIT)
    min_free_bytes: int = Field(default=256 * catalog.MIB, ge=0)
    cluster: tuple[str, ...] = ()
    replicas: Literal[1, 3, 5] | None = None

    @field_validator("cluster")
    @classmethod
    def _can_agree(cls, cluster: tuple[str, ...]) -> tuple[str, ...]:
        servers = [_server(text) for text in cluster]
        if cluster and (len(set(servers)) not in CLUSTER_SIZES or len(set(servers)) != len(servers)):
            raise ValueError(f"there are {len(set(servers))} servers: a cluster has three, or five")
        return cluster

    @property
    def servers(self) -> tuple[Server, ...]:
        """The brokers of the cluster; none if there is no cluster."""
        return tuple(map(_server, self.cluster))


def _server(text: str) -> Server:
    host, colon, port = text.strip().rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) <= HIGHEST_PORT):
        raise ValueError(f"{text!r} is not HOST:PORT, such as host1:4222")
    return Server(host.strip("[]"), int(port))
