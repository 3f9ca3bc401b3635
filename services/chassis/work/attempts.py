"""How the earlier deliveries of a command ended, in the bucket `choir_attempts`: the broker only counts them.

A loop that gives a command back says so first, in a bucket: it `refused` it (it was full, paused or
stopping, or has lost its connection, so that the broker may have given the command to another), or it has
`failed` to do it, with the error. A delivery that ended without a word is one whose process died with the
command in hand.

A command that was in the hands of two such processes may be the reason. So it is worked on `alone`: nothing
else is in work in its process meanwhile. If that one dies too the command is the reason: no more is tried.
Two deaths prove nothing, also where it was alone by chance: a process that somebody kills ends alike, and one
with a single slot has every command alone.

Whoever ends a command because its time is over finds there why it was not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from schemas import subjects
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    DeadlineExceeded,
    ErrorBody,
    error_from_body,
)
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.streams import REASON_CHARACTERS, Storage
from services.chassis.work.delivery import Delivery

ALONE_AFTER = 2
"""After one death all that a killed agent had in work would be done one by one, while the rest waits."""

SEPARATOR = b" "
"""Between how a delivery ended and with which error; what has no error is one word."""

Ending = Literal["refused", "failed", "alone"]

log = get_logger("chassis.attempts")


@dataclass(frozen=True)
class Past:
    """The deliveries before this one: how many were `refused`, how many ended without a word (`silent`), and
    in how many of these it was worked on `alone`."""

    refused: int = 0
    silent: int = 0
    alone: int = 0


async def note(storage: Storage, delivery: Delivery, ending: Ending, error: ChoirError | None = None) -> None:
    """Says how a delivery ends here, and with which error if it has failed.

    Where that cannot be said, it will look as if this process had died.
    """
    if not delivery.sequence:
        return
    said = ending.encode()
    if error is not None:
        said += SEPARATOR + _short(error).model_dump_json(exclude_none=True).encode()
    try:
        await _notes(storage).put(_key(delivery, delivery.count), said)
    except ChoirError as failure:
        log.warning("not noted", ending=ending, why=failure.message)


async def past(storage: Storage, delivery: Delivery) -> Past:
    """How the deliveries before this one ended; as if nothing had happened while the broker does not say."""
    notes = _notes(storage)
    keys = [_key(delivery, count) for count in range(1, delivery.count)]
    try:
        found = await asyncio.gather(*(notes.get(key) for key in keys))
    except BrokerUnavailable as error:
        log.warning("earlier attempts are not known", why=error.message)
        return Past()
    endings = [(entry.value or b"").split(SEPARATOR)[0].decode() for entry in found]
    alone = endings.count("alone")
    return Past(endings.count("refused"), endings.count("") + alone, alone)


async def last_error(storage: Storage, sequence: int) -> ChoirError | None:
    """With what the last failed attempt to do the command at `sequence` ended; None if that is not known."""
    stream = subjects.bucket_stream(subjects.ATTEMPTS_BUCKET)
    every = subjects.bucket_key(subjects.ATTEMPTS_BUCKET, subjects.attempt_keys(sequence))
    found, position = None, 1
    try:
        while (stored := await storage.next(stream, every, position)) is not None:
            position = stored.sequence + 1
            _, _, said = stored.data.partition(SEPARATOR)
            found = said or found
        return None if found is None else error_from_body(ErrorBody.model_validate_json(found))
    except (BrokerUnavailable, ValidationError) as error:
        log.warning("earlier errors are not known", why=str(error))
        return None


async def out_of_time(storage: Storage, sequence: int, late: DeadlineExceeded) -> ChoirError:
    """Why a command ends that nobody has in work when its time is over: with the error of its last attempt,
    if there is one. `late` says that there was no time for another, and is the error if there is none."""
    error = await last_error(storage, sequence)
    if error is None:
        return late
    error.message = f"{error.message}; {late.message}"
    return error


def _notes(storage: Storage) -> Bucket[bytes]:
    return Bucket(storage.client, subjects.ATTEMPTS_BUCKET, BYTES)


def _short(error: ChoirError) -> ErrorBody:
    body = error.body()
    return ErrorBody(code=body.code, message=body.message[:REASON_CHARACTERS], field=body.field)


def _key(delivery: Delivery, count: int) -> str:
    return subjects.attempt_key(delivery.sequence, count)


class Solitude:
    """Lets many pieces of work be done at once, or one alone."""

    def __init__(self) -> None:
        self._working = 0
        self._quiet = asyncio.Event()
        self._one = asyncio.Lock()

    @property
    def wanted(self) -> bool:
        """Whether one works alone, or waits until it can: nobody else begins."""
        return self._one.locked()

    async def enter(self) -> None:
        """Begins to work beside others."""
        while self._one.locked():
            async with self._one:
                pass
        self._working += 1

    def leave(self) -> None:
        """Has done its work."""
        self._working -= 1
        if not self._working:
            self._quiet.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Waits until nobody works, and keeps all others waiting."""
        async with self._one:
            while self._working:
                self._quiet.clear()
                await self._quiet.wait()
            yield
