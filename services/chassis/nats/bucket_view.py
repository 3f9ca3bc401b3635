"""A live copy of a key-value bucket, without a consumer.

The broker publishes once more whatever it has stored in a bucket, and the marker of a key that has run out.
So a view listens there first, then reads what is there already, and reads it again after a reconnection: what
is gone by then was deleted. It does not listen where keys are put: what is refused passes there too.

What is heard while the bucket is read counts for more than what is read: a read is answered by another part
of the broker than the one that passes updates on, so it may come late, and tell of what was before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RePublish

from schemas import subjects
from schemas.errors import ConfigurationError
from services.chassis.nats.streams import Storage, Stored

OPERATION_HEADER = "KV-Operation"


class BucketView:
    """Calls `on_put(key, value)` and `on_delete(key)` for what is in a bucket and what happens to it."""

    def __init__(
        self,
        client: Client,
        bucket: str,
        on_put: Callable[[str, bytes], None],
        on_delete: Callable[[str], None],
    ) -> None:
        self._client = client
        self._storage = Storage(client)
        self._bucket = bucket
        self._on_put = on_put
        self._on_delete = on_delete
        self._keys: set[str] = set()
        self._heard: set[str] = set()
        self._one_reload = asyncio.Lock()

    async def start(self) -> None:
        """Listens, then reads what is there. ConfigurationError if the bucket is not as the catalog says."""
        await self._client.subscribe(subjects.bucket_updates(self._bucket), cb=self._on_update)
        await self.reload()

    async def reload(self) -> None:
        """Reads everything that is in the bucket now, and tells of what is there no more."""
        async with self._one_reload:
            self._heard.clear()
            stream = subjects.bucket_stream(self._bucket)
            info = await JetStreamContext(self._client).stream_info(stream, subjects_filter=">")
            self._check(info.config.republish)
            listed = {subjects.key_in_bucket(subject): subject for subject in info.state.subjects or {}}
            for key in self._keys - listed.keys():
                self._learn(key, None)
            for key, subject in listed.items():
                stored = await self._read(subject)
                self._learn(key, stored.data if stored is not None else None)

    def forget(self, keys: Iterable[str]) -> None:
        """These have run out: nobody need be told that they are gone."""
        self._keys.difference_update(keys)

    def _check(self, rule: RePublish | None) -> None:
        if rule is None or rule.dest != subjects.bucket_updates(self._bucket):
            raise ConfigurationError(
                f"bucket {self._bucket} does not tell what is put into it: an older Choir made it; "
                "`choir up`, or `python -m infra.provision`, of this version mends that"
            )

    async def _read(self, subject: str) -> Stored | None:
        return await self._storage.last(subjects.bucket_stream(self._bucket), subject)

    def _learn(self, key: str, value: bytes | None) -> None:
        """Takes what was read, unless something newer has been heard since."""
        if key in self._heard:
            return
        if value:
            self._keys.add(key)
            self._on_put(key, value)
        elif key in self._keys:
            self._keys.discard(key)
            self._on_delete(key)

    async def _on_update(self, msg: Msg) -> None:
        key = subjects.key_of_update(msg.subject)
        if self._one_reload.locked():
            self._heard.add(key)
        if msg.data and OPERATION_HEADER not in (msg.headers or {}):
            self._keys.add(key)
            self._on_put(key, msg.data)
        else:
            self._keys.discard(key)
            self._on_delete(key)
