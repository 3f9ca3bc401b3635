"""A whole stream as a file, and a stream made of such a file: JetStream's snapshots, which the broker makes.

The stream goes on meanwhile: what is stored or acknowledged while it is copied may be in the copy or not. The
broker waits for an acknowledgement of the pieces, so a slow disk does not fill its memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import StreamInfo

from infra.broker.backup.manifest import PRIVATE, StreamEntry, entry_of
from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError, InternalError

PIECE_BYTES = 128 * 1024
PIECE_DEADLINE_S = 30.0
HEARD_OF_S = 10.0
"""So long it may take until a server of a cluster has heard where another one takes the pieces."""
ASK_AGAIN_S = 0.05
END_DEADLINE_S = 120.0
"""For the broker to check and index what it was given."""


async def copy_stream(client: Client, stream: str, folder: Path) -> StreamEntry:
    """Writes a stream into `<stream>.snapshot`. Raises BrokerUnavailable, InternalError, OSError."""
    path = folder / f"{stream}.snapshot"
    inbox = client.new_inbox()
    pieces = await client.subscribe(inbox)
    try:
        wanted = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": PIECE_BYTES}
        said = await _ask(client, subjects.stream_snapshot(stream), json.dumps(wanted).encode())
        path.touch(PRIVATE)
        with path.open("wb") as file:
            while (piece := await pieces.next_msg(PIECE_DEADLINE_S)).data:
                file.write(piece.data)
                if piece.reply:
                    await piece.respond(b"")
            file.flush()
            os.fsync(file.fileno())
    except nats.errors.TimeoutError as error:
        raise BrokerUnavailable(f"the broker has stopped sending stream {stream}") from error
    finally:
        await pieces.unsubscribe()
    headers = piece.headers or {}
    if headers.get("Status", "204") != "204":
        raise InternalError(f"the broker cannot copy stream {stream}: {headers.get('Description', headers)}")
    written = entry_of(folder, path)
    return StreamEntry(**written.model_dump(), name=stream, config=said["config"], state=said["state"])


async def make_stream(client: Client, entry: StreamEntry, folder: Path) -> StreamEntry:
    """Makes a stream of its file; the entry with the state that it has now.

    Raises BrokerUnavailable, and InternalError if the broker does not take it.
    """
    wanted = {"config": entry.config, "state": entry.state}
    said = await _ask(client, subjects.stream_restore(entry.name), json.dumps(wanted).encode())
    with (folder / entry.file).open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            await _ask(client, said["deliver_subject"], piece)
    made = await _ask(client, said["deliver_subject"], b"", END_DEADLINE_S)
    return entry.model_copy(update={"state": made["state"]})


def differs(entry: StreamEntry, made: StreamEntry) -> str | None:
    """How a stream is not what its file said; None if it is. What is too old for the stream goes at once."""
    if made.last_sequence != entry.last_sequence:
        return f"its last message is number {made.last_sequence} and not {entry.last_sequence}"
    lost = entry.state["messages"] - made.state["messages"]
    if lost and not entry.config.get("max_age"):
        return f"it holds {made.state['messages']} messages and not {entry.state['messages']}"
    return None


async def streams_of(client: Client) -> list[StreamInfo]:
    """Every stream of the broker, with its state."""
    try:
        found: list[StreamInfo] = await client.jetstream().streams_info()
    except nats.errors.Error as error:
        raise BrokerUnavailable("the broker does not say which streams it has") from error
    return found


async def _ask(
    client: Client, subject: str, body: bytes, deadline_s: float = PIECE_DEADLINE_S
) -> dict[str, Any]:
    heard_of_s = time.monotonic() + HEARD_OF_S
    while True:
        try:
            reply = await client.request(subject, body, timeout=deadline_s)
            break
        except nats.errors.NoRespondersError as error:
            if time.monotonic() > heard_of_s:
                raise BrokerUnavailable("the broker does not take what it was asked for") from error
            await asyncio.sleep(ASK_AGAIN_S)
        except nats.errors.TimeoutError as error:
            raise BrokerUnavailable(f"the broker did not answer within {deadline_s:g} s") from error
    said: dict[str, Any] = json.loads(reply.data) if reply.data else {}
    if "error" in said:
        raise _refused(said["error"])
    return said


def _refused(error: dict[str, Any]) -> ChoirError:
    return InternalError(f"the broker refuses it: {error.get('description', error)}")
