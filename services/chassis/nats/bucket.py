"""A key-value bucket: a live copy of it without a consumer, direct reads, changes by compare-and-set.

The broker publishes once more whatever it has stored in a bucket, and the marker of a key that has run out.
So a watch listens there first, then reads what is there already, and reads it again after a reconnection:
what is gone by then was deleted. It does not listen where keys are put: what is refused passes there too.

What is heard while the bucket is read counts for more than what is read: a read is answered by another part
of the broker than the one that passes updates on, so it may come late, and tell of what was before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RePublish
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ConfigurationError
from schemas.message import Message
from services.chassis.logs import get_logger
from services.chassis.nats.streams import Storage, Stored

OPERATION_HEADER = "KV-Operation"

ValueT = TypeVar("ValueT")
MessageT = TypeVar("MessageT", bound=Message)

log = get_logger("chassis.bucket")


@dataclass(frozen=True)
class Format(Generic[ValueT]):
    """How the values of a bucket are read, with a ValidationError for what cannot be, and written."""

    read: Callable[[bytes], ValueT]
    write: Callable[[ValueT], bytes]


BYTES: Format[bytes] = Format(bytes, bytes)
"""Values of several kinds, which the owner of the bucket reads itself."""


def messages(kind: type[MessageT]) -> Format[MessageT]:
    """Values that are messages of one kind."""
    return Format(kind.read, kind.to_bytes)


class Bucket(Generic[ValueT]):
    """One bucket. While it is watched, `on_put(key, value)` and `on_delete(key)` are called for what is in it
    and what happens to it, and `on_unreadable(key, error)` for a value that is not of its format."""

    def __init__(
        self,
        client: Client,
        name: str,
        values: Format[ValueT],
        on_put: Callable[[str, ValueT], None] = lambda _key, _value: None,
        on_delete: Callable[[str], None] = lambda _key: None,
        on_unreadable: Callable[[str, ValidationError], None] | None = None,
    ) -> None:
        self._client = client
        self._storage = Storage(client)
        self._name = name
        self._values = values
        self._on_put = on_put
        self._on_delete = on_delete
        self._on_unreadable = on_unreadable or self._say_unreadable
        self._keys: set[str] = set()
        self._heard: set[str] = set()
        self._one_reload = asyncio.Lock()

    # --- a live copy --------------------------------------------------------------------

    async def watch(self) -> None:
        """Listens, then reads what is there. ConfigurationError if the bucket is not as the catalog says."""
        await self._client.subscribe(subjects.bucket_updates(self._name), cb=self._on_update)
        await self.reload()

    async def reload(self) -> None:
        """Reads everything that is in the bucket now, and tells of what is there no more."""
        async with self._one_reload:
            self._heard.clear()
            stream = subjects.bucket_stream(self._name)
            info = await JetStreamContext(self._client).stream_info(stream, subjects_filter=">")
            self._check(info.config.republish)
            listed = [subjects.key_in_bucket(subject) for subject in info.state.subjects or {}]
            for key in self._keys.difference(listed):
                self._learn(key, None)
            for key in listed:
                stored = await self._read(key)
                self._learn(key, stored.data if stored is not None else None)

    def forget(self, keys: Iterable[str]) -> None:
        """These have run out: nobody need be told that they are gone."""
        self._keys.difference_update(keys)

    def _check(self, rule: RePublish | None) -> None:
        if rule is None or rule.dest != subjects.bucket_updates(self._name):
            raise ConfigurationError(
                f"bucket {self._name} does not tell what is put into it: an older Choir made it; "
                "`choir up`, or `python -m infra.provision`, of this version mends that"
            )

    def _learn(self, key: str, data: bytes | None) -> None:
        """Takes what was read, unless something newer has been heard since."""
        if key in self._heard:
            return
        if data:
            self._tell_put(key, data)
        elif key in self._keys:
            self._tell_deleted(key)

    async def _on_update(self, msg: Msg) -> None:
        key = subjects.key_of_update(msg.subject)
        if self._one_reload.locked():
            self._heard.add(key)
        if msg.data and OPERATION_HEADER not in (msg.headers or {}):
            self._tell_put(key, msg.data)
        else:
            self._tell_deleted(key)

    def _tell_put(self, key: str, data: bytes) -> None:
        self._keys.add(key)
        try:
            value = self._values.read(data)
        except ValidationError as error:
            self._on_unreadable(key, error)
        else:
            self._on_put(key, value)

    def _tell_deleted(self, key: str) -> None:
        self._keys.discard(key)
        self._on_delete(key)

    def _say_unreadable(self, key: str, error: ValidationError) -> None:
        fault = error.errors()[0]
        log.warning("unreadable", bucket=self._name, key=key, field=fault["loc"], why=fault["msg"])

    # --- reading ------------------------------------------------------------------------

    async def _read(self, key: str) -> Stored | None:
        return await self._storage.last(
            subjects.bucket_stream(self._name), subjects.bucket_key(self._name, key)
        )
