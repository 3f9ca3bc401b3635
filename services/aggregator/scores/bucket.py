"""A key-value bucket that is changed by compare-and-set, whoever else does so, whatever word is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from schemas import subjects
from schemas.errors import BrokerUnavailable, Overloaded
from services.chassis.logs import get_logger
from services.chassis.nats.streams import STREAM_FULL

UPDATE_ATTEMPTS = 16
PAUSE_S = 0.1
MARKER_TTL_S = 1.0
NO_WORD = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
)
"""After these nobody knows whether the broker has stored what was sent."""
FULL = (
    "the bucket {bucket} is full: nothing more can be learnt; keep what is there with "
    "choir scores --export FILE, and have it forgotten with choir scores --reset"
)

Change = Callable[[bytes | None], bytes]
"""From a value (None if there is none) to the one that is wanted; the same one if nothing is to be changed.

It is asked again when another one was faster, or the broker's word was lost. In the second case the value may
be its own: it has to know its own work again.
"""

log = get_logger("aggregator.bucket")


class Bucket:
    """One bucket. Its methods raise BrokerUnavailable if the broker is silent, Overloaded if it is full."""

    def __init__(self, client: Client, name: str) -> None:
        self._js = JetStreamContext(client, timeout=2.0)
        self._name = name
        self._opened: KeyValue | None = None

    async def open(self) -> None:
        """Before anything else."""
        self._opened = await self._js.key_value(self._name)

    async def change(self, key: str, change: Change) -> bytes:
        """Makes the value what `change` wants it to be, and returns it."""
        for _ in range(UPDATE_ATTEMPTS):
            try:
                return await self._try_change(key, change)
            except nats.js.errors.KeyWrongLastSequenceError:
                log.debug("read again: another one was faster", bucket=self._name, key=key)
            except nats.js.errors.APIError as error:
                if error.err_code == STREAM_FULL:
                    raise Overloaded(FULL.format(bucket=self._name), retry_after_s=60.0) from error
                if not isinstance(error, nats.js.errors.ServiceUnavailableError):
                    raise
                await self._pause(key, error)
            except NO_WORD as error:
                await self._pause(key, error)
        raise BrokerUnavailable(f"{key} in {self._name} could not be changed", retry_after_s=1.0)

    async def _try_change(self, key: str, change: Change) -> bytes:
        bucket = self._bucket()
        try:
            entry = await bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            wanted = change(None)
            await bucket.create(key, wanted)
            return wanted
        stored = entry.value or b""
        wanted = change(stored)
        if wanted != stored:
            await bucket.update(key, wanted, last=entry.revision)
        return wanted

    async def get(self, key: str) -> bytes | None:
        """The value of a key; None if it has none."""
        try:
            return (await self._bucket().get(key)).value
        except nats.js.errors.KeyNotFoundError:
            return None
        except NO_WORD as error:
            raise BrokerUnavailable(f"{self._name} could not be read", retry_after_s=1.0) from error

    async def keys(self, pattern: str) -> list[str]:
        """The keys that fit a pattern, those that were removed within the last second among them."""
        stream = subjects.bucket_stream(self._name)
        try:
            info = await self._js.stream_info(
                stream, subjects_filter=subjects.bucket_key(self._name, pattern)
            )
        except NO_WORD as error:
            raise BrokerUnavailable(f"{self._name} could not be read", retry_after_s=1.0) from error
        return [subjects.key_in_bucket(subject) for subject in info.state.subjects or {}]

    async def remove(self, key: str) -> None:
        """Removes a key, and a second later every trace of it."""
        try:
            await self._bucket().purge(key, msg_ttl=MARKER_TTL_S)
        except NO_WORD as error:
            raise BrokerUnavailable(f"{key} in {self._name} could not be removed") from error

    async def _pause(self, key: str, error: Exception) -> None:
        log.info("read again: no word of the broker", key=key, why=type(error).__name__)
        await asyncio.sleep(PAUSE_S)

    def _bucket(self) -> KeyValue:
        if self._opened is None:
            raise RuntimeError("open() comes first")
        return self._opened
