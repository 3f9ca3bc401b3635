"""Whether a cordon is around this instance, or around its host."""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.client import Client

from schemas import subjects
from services.chassis.identity import Identity
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.connection import ConnectionEvents


class OwnCordon:
    """`holds` while somebody wants this instance to take nothing new. Nothing holds before `start`."""

    def __init__(self, client: Client, identity: Identity) -> None:
        self._own = frozenset(
            (subjects.host_cordon_key(identity.host), subjects.instance_cordon_key(identity.instance))
        )
        self._there: set[str] = set()
        self._followers: list[Callable[[], None]] = []
        self._bucket = Bucket(client, subjects.CORDONS_BUCKET, BYTES, self._on_put, self._on_delete)

    async def start(self, connection: ConnectionEvents) -> None:
        """Returns when it is known whether it holds; follows the bucket from then on."""
        await self._bucket.watch()
        connection.on_reconnect(self._bucket.reload)
        connection.on_missed(subjects.bucket_updates(subjects.CORDONS_BUCKET), self._bucket.reload)

    @property
    def holds(self) -> bool:
        """Whether nothing new is to be taken."""
        return bool(self._there)

    def follow(self, on_change: Callable[[], None]) -> None:
        """Calls `on_change` whenever it begins or ceases to hold."""
        self._followers.append(on_change)

    def unfollow(self, on_change: Callable[[], None]) -> None:
        """Does so no more."""
        if on_change in self._followers:
            self._followers.remove(on_change)

    def _on_put(self, key: str, _value: bytes) -> None:
        if key in self._own:
            self._change(self._there | {key})

    def _on_delete(self, key: str) -> None:
        self._change(self._there - {key})

    def _change(self, there: set[str]) -> None:
        held, self._there = self.holds, there
        if held != self.holds:
            for follower in tuple(self._followers):
                follower()
