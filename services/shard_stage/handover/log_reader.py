"""Reads the log of a pipeline: many stored messages for one request, without a consumer (ADR-31)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError
from schemas.pipelines.stage_wire import Item, unpack
from services.chassis.logs import get_logger
from services.chassis.nats.reading import get_many

BATCH_MESSAGES = 512
BATCH_BYTES = 32 * 1024 * 1024
STALL_S = 2.0
PENDING_HEADER = "Nats-Num-Pending"

log = get_logger("shard_stage.log_reader")


@asynccontextmanager
async def client_for_reading(options: Mapping[str, Any]) -> AsyncIterator[Client]:
    """A client on the loop of whoever reads, with the options of `nats.connect()` but for what they say of
    lost connections: it is not made again. Raises BrokerUnavailable where there is no broker."""
    told = {name: value for name, value in options.items() if not name.endswith("_cb")}
    try:
        async with asyncio.timeout(STALL_S):
            client = await nats.connect(**told | {"allow_reconnect": False})
    except (OSError, nats.errors.Error) as error:
        raise BrokerUnavailable("the log cannot be read: no broker answers") from error
    try:
        yield client
    finally:
        await client.close()


async def read_items(client: Client, subject: str, since_s: float | None) -> AsyncIterator[Item]:
    """The items in the log that were sent to a stage, oldest first, from `since_s` on.

    What cannot be read, because it is damaged or of another version, is left out: it is a gap like that of a
    message which was never stored. Raises BrokerUnavailable as read_log().
    """
    async for message in read_log(client, subjects.ACTIVATIONS_STREAM, subject, since_s):
        try:
            for item in unpack(message):
                yield item
        except ChoirError as error:
            log.warning("a message of the log cannot be read", subject=subject, why=error.message)


async def read_log(client: Client, stream: str, subject: str, since_s: float | None) -> AsyncIterator[bytes]:
    """The messages on a subject, oldest first, stored at `since_s` (seconds since the epoch) or later.

    Raises BrokerUnavailable where the stream cannot be read or the broker falls silent.
    """
    start: dict[str, object] = {"seq": 1}
    if since_s is not None:
        start = {"start_time": datetime.fromtimestamp(since_s, UTC).isoformat()}
    limits = {"next_by_subj": subject, "batch": BATCH_MESSAGES, "max_bytes": BATCH_BYTES}
    while batch := await get_many(client, stream, start | limits, patience_s=STALL_S):
        for stored in batch:
            yield stored.data
        if len(batch) < BATCH_MESSAGES and batch[-1].headers.get(PENDING_HEADER, "0") == "0":
            return
        start = {"seq": batch[-1].sequence + 1}
