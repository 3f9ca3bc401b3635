"""`[broker]` of choir.toml: read by `choir up`, and by clients that look for the broker on this host."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from schemas import catalog
from services.chassis.settings import Section

MAX_PAYLOAD_LIMIT = 64 * catalog.MIB
"""nats-server refuses to start above it."""


class BrokerSection(Section):
    """`[broker]`: the broker that `choir up` starts on this host.

    With `embedded = false` none is started, and `[mesh] url` says where one is. `port` 0 takes a free
    one. `store_dir` is relative to choir.toml; by default it is `broker` in the state folder.
    With less than `min_free_bytes` free on its disk, `choir up` and `choir status` warn.
    """

    embedded: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=4222, ge=0, le=65_535)
    store_dir: Path | None = None
    max_payload: int = Field(default=catalog.MIB, ge=64 * 1024, le=MAX_PAYLOAD_LIMIT)
    min_free_bytes: int = Field(default=256 * catalog.MIB, ge=0)
