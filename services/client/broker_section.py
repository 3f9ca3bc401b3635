"""`[broker]` of choir.toml: read by `choir up`, and by clients that look for the broker on this host."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from schemas import catalog
from services.chassis.settings import Section

MAX_PAYLOAD_LIMIT = 64 * catalog.MIB
"""nats-server refuses to start above it."""


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
    """

    embedded: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=4222, ge=0, le=65_535)
    addresses: tuple[str, ...] = ()
    tls: BrokerTlsSection | None = None
    store_dir: Path | None = None
    max_payload: int = Field(default=catalog.MIB, ge=64 * 1024, le=MAX_PAYLOAD_LIMIT)
    min_free_bytes: int = Field(default=256 * catalog.MIB, ge=0)
