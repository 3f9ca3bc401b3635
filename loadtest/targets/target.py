"""The protocol of a target: it takes requests, and notes of each what is seen of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from loadtest.generate.request_record import RequestRecord
from loadtest.generate.workloads import Fields

Clock = Callable[[], float]
"""Seconds since the start of the run."""


class Target(Protocol):
    """Whoever answers. `send` returns when the request has left; what comes back is put into its record."""

    async def open(self, clock: Clock) -> None:
        """Connects. Raises NoMesh if nobody is there."""

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        """Starts one request; must not wait for its answer."""

    async def settle(self, records: Collection[RequestRecord]) -> None:
        """Ends the records whose answer has not come: whatever can be found out of them is put in."""

    async def close(self) -> None:
        """Lets go of the connection."""
