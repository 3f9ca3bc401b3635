"""The identity of a service instance: service, name, host, version."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from importlib.metadata import version

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(one + other for one in DIGITS for other in DIGITS)
_SHIFTS = tuple(range(120, -1, -10))


def new_id() -> str:
    """A new ULID: 26 characters that sort by time, to the millisecond. Every request has one: the library
    takes several times as long to make it."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in _SHIFTS])


@dataclass(frozen=True)
class Identity:
    """One running instance of a service; `instance` is unique in the mesh.

    `host_id` tells hosts of one name apart; None where nobody has said it.
    """

    service: str
    instance: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started_at_s: float = field(default_factory=time.time)
    version: str = field(default_factory=lambda: version("choir"))
    host_id: str | None = None

    @classmethod
    def of(cls, service: str, instance: str | None, host_id: str | None = None) -> Identity:
        """The identity under a given instance name, or under one of its own making."""
        return cls(service, instance or f"{service}-{new_id()[-8:].lower()}", host_id=host_id)
