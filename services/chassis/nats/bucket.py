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

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import Header, RePublish, StreamInfo
from nats.js.kv import KV_DEL, KV_OP, KV_PURGE, MSG_ROLLUP_SUBJECT
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, ConfigurationError, Overloaded
from schemas.message import Message
from services.chassis.logs import get_logger
from services.chassis.nats.connection import check_payload
from services.chassis.nats.election import passes, stream_is_full
from services.chassis.nats.reading import Stored
from services.chassis.nats.streams import Storage

WRONG_SEQUENCE = (10071, 10164)
"""The broker's codes for a compare-and-set that comes too late."""
WRITE_TIMEOUT_S = 2.0
WRITE_ATTEMPTS = 3
CHANGE_ATTEMPTS = 16
PAUSE_S = 0.1
MARKER_TTL_S = 1.0
RETRY_AFTER_S = 1.0
FULL_RETRY_AFTER_S = 60.0
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


@dataclass(frozen=True)
class Entry(Generic[ValueT]):
    """A key as it was read: its value, None if it has none, and the revision that a change has to name."""

    value: ValueT | None
    revision: int


class WrongRevision(Exception):
    """Raised when somebody else has changed a key since the revision that a change names."""


class _NoWord(BrokerUnavailable):
    """Raised when nobody knows whether the broker has stored what was sent, or it could not be read."""


class Bucket(Generic[ValueT]):
    """One bucket. While it is watched, `on_put(key, value)` and `on_delete(key)` are called for what is in it
    and what happens to it, and `on_unreadable(key, error)` for a value that is not of its format. A key that
    has run out, or is there no more when all is read again, is told to `on_missing`, by default to
    `on_delete`.

    What is written raises BrokerUnavailable if the broker does not store it, PayloadTooLarge, and Overloaded
    with the text `full` if the bucket has no room.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        values: Format[ValueT],
        on_put: Callable[[str, ValueT], None] = lambda _key, _value: None,
        on_delete: Callable[[str], None] = lambda _key: None,
        on_unreadable: Callable[[str, ValidationError], None] | None = None,
        full: str | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._js = JetStreamContext(client, timeout=WRITE_TIMEOUT_S)
        self._storage = Storage(client)
        self._name = name
        self._values = values
        self._on_put = on_put
        self._on_delete = on_delete
        self._on_missing = on_missing or on_delete
        self._on_unreadable = on_unreadable or self._say_unreadable
        self._full = full or f"the bucket {name} is full"
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
            info = await self._info(">")
            self._check(info.config.republish)
            listed = _keys_in(info)
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
                "`choir up`, or `python -m infra.broker.provision`, of this version mends that"
            )

    def _learn(self, key: str, data: bytes | None) -> None:
        """Takes what was read, unless something newer has been heard since."""
        if key in self._heard:
            return
        if data:
            self._emit_put(key, data)
        elif key in self._keys:
            self._emit_gone(key, self._on_missing)

    async def _on_update(self, msg: Msg) -> None:
        key = subjects.key_of_update(msg.subject)
        if self._one_reload.locked():
            self._heard.add(key)
        if KV_OP in (msg.headers or {}):
            self._emit_gone(key, self._on_delete)
        elif msg.data:
            self._emit_put(key, msg.data)
        else:
            self._emit_gone(key, self._on_missing)  # the marker of a key that has run out

    def _emit_put(self, key: str, data: bytes) -> None:
        self._keys.add(key)
        try:
            value = self._values.read(data)
        except ValidationError as error:
            self._on_unreadable(key, error)
        else:
            self._on_put(key, value)

    def _emit_gone(self, key: str, told: Callable[[str], None]) -> None:
        self._keys.discard(key)
        told(key)

    def _say_unreadable(self, key: str, error: ValidationError) -> None:
        fault = error.errors()[0]
        log.warning("unreadable", bucket=self._name, key=key, field=fault["loc"], why=fault["msg"])

    # --- reading ------------------------------------------------------------------------

    async def get(self, key: str) -> Entry[ValueT]:
        """A key as the broker has it. Raises BrokerUnavailable, or ValidationError if nobody can read it."""
        stored = await self._read(key)
        if stored is None:
            return Entry(None, 0)
        return Entry(self._values.read(stored.data) if stored.data else None, stored.sequence)

    async def revision(self, key: str) -> int:
        """The revision of a key whose value need not be readable; 0 where there has never been one."""
        stored = await self._read(key)
        return 0 if stored is None else stored.sequence

    async def keys(self, pattern: str) -> list[str]:
        """The keys that fit a pattern, those that were deleted and still leave a trace among them."""
        try:
            return _keys_in(await self._info(subjects.bucket_key(self._name, pattern)))
        except nats.errors.Error as error:
            if not passes(error):
                raise
            raise BrokerUnavailable(
                f"bucket {self._name} could not be read", retry_after_s=RETRY_AFTER_S
            ) from error

    async def _info(self, pattern: str) -> StreamInfo:
        stream = subjects.bucket_stream(self._name)
        return await JetStreamContext(self._client).stream_info(stream, subjects_filter=pattern)

    async def _read(self, key: str) -> Stored | None:
        try:
            return await self._storage.last(
                subjects.bucket_stream(self._name), subjects.bucket_key(self._name, key)
            )
        except BrokerUnavailable as error:
            raise _NoWord(error.message, retry_after_s=RETRY_AFTER_S) from error
        except nats.errors.Error as error:
            raise self._failure(key, error) from error

    # --- writing ------------------------------------------------------------------------

    async def put(self, key: str, value: ValueT) -> None:
        """Puts a value, whatever was there before."""
        await self._publish(key, self._values.write(value))

    async def update(self, key: str, value: ValueT, revision: int) -> int:
        """Puts a value if nobody has changed the key since `revision`, and returns the revision that it has.

        An entry without a value has a revision too: that is how a key is made. Raises WrongRevision.
        """
        return await self._exchange(key, self._values.write(value), revision)

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Deletes a key; with a `revision` only if nobody has changed it since, else WrongRevision."""
        if revision is None:
            await self._publish(key, b"", {KV_OP: KV_DEL})
        else:
            await self._exchange(key, b"", revision, {KV_OP: KV_DEL})

    async def purge(self, key: str) -> None:
        """Removes a key, and a second later every trace of it."""
        headers = {KV_OP: KV_PURGE, Header.ROLLUP.value: MSG_ROLLUP_SUBJECT}
        await self._publish(key, b"", headers, ttl_s=MARKER_TTL_S)

    async def change(self, key: str, change: Callable[[ValueT | None], ValueT]) -> ValueT:
        """Makes the value what `change` wants it to be, and returns it.

        `change` is given the value, None if there is none, and returns the one that is wanted: the same one
        if nothing is to be changed. It is asked again when another one was faster, or the broker's word was
        lost. In the second case the value may be its own: it has to know its own work again.
        """
        for _ in range(CHANGE_ATTEMPTS):
            try:
                entry = await self.get(key)
                wanted = change(entry.value)
                if wanted != entry.value:
                    await self._publish(key, self._values.write(wanted), expected=entry.revision)
                return wanted
            except WrongRevision:
                log.debug("read again: another one was faster", bucket=self._name, key=key)
            except _NoWord as error:
                log.info("read again: no word of the broker", bucket=self._name, key=key, why=error.message)
                await asyncio.sleep(PAUSE_S)
        raise BrokerUnavailable(
            f"{key} in bucket {self._name} could not be changed", retry_after_s=RETRY_AFTER_S
        )

    async def _exchange(
        self, key: str, data: bytes, revision: int, headers: dict[str, str] | None = None
    ) -> int:
        """Compare and set. A lost word is no lost race: the key is read before it is tried again."""
        unsure = False
        for _ in range(WRITE_ATTEMPTS):
            try:
                return await self._publish(key, data, headers, expected=revision)
            except WrongRevision:
                if not unsure:
                    raise
            except _NoWord as error:
                unsure = True
                log.info("read again: no word of the broker", bucket=self._name, key=key, why=error.message)
            stored = await self._read(key)
            there, last = (stored.data, stored.sequence) if stored is not None else (b"", 0)
            if last != revision:
                if there == data:
                    return last
                raise WrongRevision(f"{key} in bucket {self._name} was changed by somebody else")
            await asyncio.sleep(PAUSE_S)
        raise BrokerUnavailable(
            f"{key} in bucket {self._name} could not be changed", retry_after_s=RETRY_AFTER_S
        )

    async def _publish(
        self,
        key: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        expected: int | None = None,
        ttl_s: float | None = None,
    ) -> int:
        check_payload(self._client, data, field="value")
        if expected is not None:
            headers = {**(headers or {}), subjects.EXPECTED_SEQUENCE_HEADER: str(expected)}
        try:
            ack = await self._js.publish(
                subjects.bucket_key(self._name, key), data, headers=headers, msg_ttl=ttl_s
            )
        except nats.errors.Error as error:
            raise self._failure(key, error) from error
        return ack.seq

    def _failure(self, key: str, error: nats.errors.Error) -> Exception:
        code = error.err_code if isinstance(error, nats.js.errors.APIError) else None
        if code in WRONG_SEQUENCE:
            return WrongRevision(f"{key} in bucket {self._name} was changed by somebody else")
        if stream_is_full(error):
            return Overloaded(self._full, retry_after_s=FULL_RETRY_AFTER_S)
        kind = _NoWord if passes(error) else BrokerUnavailable
        why = str(error) or type(error).__name__
        return kind(f"{key} in bucket {self._name}: {why}", retry_after_s=RETRY_AFTER_S)


def _keys_in(info: StreamInfo) -> list[str]:
    return [subjects.key_in_bucket(subject) for subject in info.state.subjects or {}]
