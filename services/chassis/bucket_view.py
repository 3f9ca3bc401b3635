"""A live copy of a key-value bucket, without a consumer.

What is put into a bucket also passes plain subscribers of its subject. So a view listens first, then
reads what is there already, and reads it again after a reconnection.
"""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from schemas import subjects
from services.chassis.storage import Storage

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
        self._bucket = bucket
        self._on_put = on_put
        self._on_delete = on_delete

    async def start(self) -> None:
        """Listens, then reads what is there."""
        await self._client.subscribe(subjects.bucket_updates(self._bucket), cb=self._on_update)
        await self.reload()

    async def reload(self) -> None:
        """Reads everything that is in the bucket now."""
        stream = subjects.bucket_stream(self._bucket)
        storage = Storage(self._client)
        info = await JetStreamContext(self._client).stream_info(stream, subjects_filter=">")
        for subject in info.state.subjects or {}:
            stored = await storage.last(stream, subject)
            if stored is not None and stored.data:
                self._on_put(subjects.key_of_update(subject), stored.data)

    async def _on_update(self, msg: Msg) -> None:
        key = subjects.key_of_update(msg.subject)
        if msg.headers and OPERATION_HEADER in msg.headers:
            self._on_delete(key)
        elif msg.data:
            self._on_put(key, msg.data)
