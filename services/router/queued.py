"""Finds the command of a request that is in the queue or in work."""

from __future__ import annotations

from pydantic import ValidationError

from schemas import subjects
from schemas.commands import Command, Gather, Generate, Summarize
from schemas.errors import PoisonMessage
from services.chassis.logs import get_logger
from services.chassis.nats.reading import Stored
from services.chassis.nats.streams import Storage
from services.chassis.work.newer import newer_command

log = get_logger("router.queued")


def parse_command(data: bytes) -> Command:
    """The command in a message of the COMMANDS stream, without what only a newer version knows.

    Raises PoisonMessage if it is none, UnsupportedVersion if it is of a version that cannot be read at all.
    """
    for command_type in (Generate, Gather, Summarize):
        try:
            return command_type.read(data)
        except ValidationError as error:
            if newer := newer_command(data, error):
                raise newer.error("router") from error
            log.debug("not this type of command", type=command_type.__name__)
    raise PoisonMessage("the command could not be read")


async def queued_message(storage: Storage, request_id: str) -> Stored | None:
    """The stored command of a request that has no result yet; None if there is none."""
    for subject in subjects.commands_of(request_id):
        stored = await storage.last(subjects.COMMANDS_STREAM, subject)
        if stored is not None:
            return stored
    return None


async def queued_command(storage: Storage, request_id: str) -> Command | None:
    """The same, read."""
    stored = await queued_message(storage, request_id)
    return None if stored is None else parse_command(stored.data)
