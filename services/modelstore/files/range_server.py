"""Answers other hosts, and stages, that ask for bytes of a file.

One request is answered after another, each by one message, and none is begun while the connection holds
more than a little that the broker has not taken: so memory does not grow with the number of those who ask.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import ChoirError, InternalError, InvalidRequest, NotReady, PayloadTooLarge, PullFailed
from schemas.nodes.model_store import ReadRange
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller, is_inbox, parse
from services.modelstore.files.known_files import KnownFile, KnownFiles
from services.modelstore.files.partial_file import PartialFile

UNSENT_BYTES = 4 * 1024 * 1024
OPEN_FILES = 16
FLUSH_PATIENCE_S = 10

log = get_logger("modelstore.ranges")


class RangeServer:
    """Reads of whole files, and of what has come of those that are being fetched (`partial`)."""

    def __init__(
        self, client: Client, instance: str, known: KnownFiles, partial: Mapping[str, PartialFile]
    ) -> None:
        self._client = client
        self._instance = instance
        self._known = known
        self._partial = partial
        self._open: OrderedDict[str, int] = OrderedDict()
        self.served_bytes = 0

    async def start(self) -> None:
        """Answers from now on."""
        self._subscription = await self._client.subscribe(subjects.blob(self._instance), cb=self._on_request)

    async def stop(self) -> None:
        """Answers nobody any more."""
        await self._subscription.unsubscribe()
        while self._open:
            os.close(self._open.popitem()[1])

    async def _on_request(self, msg: Msg) -> None:
        if not is_inbox(msg.reply):
            return
        caller = Caller(self._client, msg.reply)
        try:
            wanted = parse(msg.data, ReadRange)
            if wanted.length > self._client.max_payload:
                raise PayloadTooLarge(
                    f"length: {wanted.length} bytes are more than the broker carries", field="length"
                )
            content = await asyncio.to_thread(self.read, wanted.sha256, wanted.offset, wanted.length)
        except ChoirError as error:
            await caller.send_error(error)
            return
        except Exception as error:
            log.exception("a range cannot be read")
            await caller.send_error(InternalError(f"{type(error).__name__} in the model store"))
            return
        await self._client.publish(msg.reply, content)
        self.served_bytes += len(content)
        if self._client.pending_data_size > UNSENT_BYTES:
            await self._client.flush(FLUSH_PATIENCE_S)

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Bytes of a file that is here. Blocks; raises its typed error."""
        known = self._known.get(sha256)
        if known is not None:
            return self._read_known(known, offset, length)
        partial = self._partial.get(sha256)
        if partial is None:
            raise PullFailed(f"{self._instance} does not hold the file {sha256}", field="sha256")
        _check_inside(offset, length, partial.size_bytes)
        if not partial.has(offset, length):
            raise NotReady(f"{self._instance} is still fetching that part of {sha256}", field="offset")
        return partial.read(offset, length)

    def _read_known(self, known: KnownFile, offset: int, length: int) -> bytes:
        _check_inside(offset, length, known.size_bytes)
        sha256 = known.chunks.sha256
        descriptor = self._open.get(sha256)
        if descriptor is None or not known.is_still(os.fstat(descriptor)):
            self._close(sha256)
            descriptor = self._open[sha256] = os.open(known.path, os.O_RDONLY)
            if not known.is_still(os.fstat(descriptor)):
                self._close(sha256)
                raise PullFailed(f"the file of {sha256} at {self._instance} has changed", field="sha256")
            while len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(sha256)
        return os.pread(descriptor, length, offset)

    def _close(self, sha256: str) -> None:
        descriptor = self._open.pop(sha256, None)
        if descriptor is not None:
            os.close(descriptor)


def _check_inside(offset: int, length: int, size_bytes: int) -> None:
    if offset + length > size_bytes:
        raise InvalidRequest(
            f"offset: bytes {offset} to {offset + length} are not in a file of {size_bytes}", field="offset"
        )
