"""The endpoint `choir.dead_letters`: what could not be done is looked at, asked again, or dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from pydantic import ValidationError

from schemas import subjects
from schemas.commands import Ask, Command, Gather, Generate, Summarize
from schemas.errors import BrokerUnavailable, InvalidRequest, PoisonMessage, UnsupportedVersion
from schemas.requests.dead_letters import DeadLetter, DeadLettersReply, LetterKind, ManageDeadLetters
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.reading import Stored
from services.router.admission.controller import AdmissionController
from services.router.queued import parse_command

MOST_ID_CHARACTERS = 64
SHORTEST_S, LONGEST_S = 0.1, 3600.0
DELETE_TIMEOUT_S = 2.0
KINDS: dict[type[Command], LetterKind] = {Generate: "generate", Gather: "gather", Summarize: "summarize"}


class DeadLetters:
    """`choir.dead_letters`: list, show, retry, drop."""

    def __init__(self, mesh: ServiceContext, admission: AdmissionController) -> None:
        self._storage = mesh.storage
        self._js = JetStreamContext(mesh.client, timeout=DELETE_TIMEOUT_S)
        self._admission = admission

    async def manage(self, request: ManageDeadLetters, caller: Caller) -> None:
        """Does what is asked, and sends the letters that it concerns."""
        if request.sequence is None:
            await caller.send_what_fits(await self._list(request))
            return
        stored = await self._find(request.sequence)
        retried_as = None
        if request.action == "retry":
            retried_as = await self._retry(stored)
        if request.action != "show":
            await self._delete(stored)
        await caller.send_what_fits(one_letter(stored, retried_as, whole=request.action == "show"))

    async def _list(self, request: ManageDeadLetters) -> Iterator[DeadLettersReply]:
        letters: list[DeadLetter] = []
        position = request.after_sequence
        while (stored := await self._next(position + 1)) is not None and len(letters) < request.limit:
            letter = describe(stored)
            if request.tenant in (None, subjects.owner_of(letter.request_id)):
                letters.append(letter)
            position = stored.sequence
        return pages(tuple(letters), more=stored is not None)

    async def _next(self, sequence: int) -> Stored | None:
        return await self._storage.next(subjects.DEAD_STREAM, subjects.ALL_DEAD, sequence)

    async def _find(self, sequence: int) -> Stored:
        stored = await self._next(sequence)
        if stored is None or stored.sequence != sequence:
            raise InvalidRequest(
                f"sequence: there is no dead letter {sequence}; `choir dead list` has those that there are",
                field="sequence",
            )
        return stored

    async def _retry(self, stored: Stored) -> str:
        """Asks again what the letter asked. The same letter always becomes the same request: a retry that was
        cut off before the letter was deleted is not done twice."""
        request_id = retried_id(describe(stored).request_id, stored.sequence)
        await self._admission.admit(ask_again(stored, subjects.bare_id(request_id)), request_id)
        return request_id

    async def _delete(self, stored: Stored) -> None:
        try:
            await self._js.delete_msg(subjects.DEAD_STREAM, stored.sequence)
        except nats.js.errors.NotFoundError:
            return  # somebody else was faster
        except nats.errors.Error as error:
            raise BrokerUnavailable("a dead letter could not be deleted") from error


def describe(stored: Stored) -> DeadLetter:
    """The summary of a letter, without its content."""
    service, request_id = subjects.dead_letter_of(stored.subject)
    command = _readable(stored)
    return DeadLetter(
        sequence=stored.sequence,
        died_at_s=datetime.fromisoformat(stored.headers[subjects.STORED_AT_HEADER]).timestamp(),
        service=service,
        request_id=request_id,
        reason=stored.headers.get(subjects.REASON_HEADER, ""),
        letter="unreadable" if command is None else KINDS[type(command)],
        models=() if command is None else models_of(command),
        part_of=command.routing_slip[0] if isinstance(command, Generate) and command.routing_slip else None,
        size_bytes=len(stored.data),
    )


def one_letter(stored: Stored, retried_as: str | None, *, whole: bool) -> Iterator[DeadLettersReply]:
    """A letter, and ever shorter beginnings of its content."""
    letter = describe(stored)
    text = readable(stored.data) if whole else ""
    while text:
        shown = letter.model_copy(update={"content": text})
        yield DeadLettersReply(letters=(shown,), retried_as=retried_as)
        text = text[: len(text) // 2]
    yield DeadLettersReply(letters=(letter,), retried_as=retried_as)


def pages(letters: tuple[DeadLetter, ...], *, more: bool) -> Iterator[DeadLettersReply]:
    """The list, and ever shorter ones, each with where to go on."""
    while letters:
        yield DeadLettersReply(letters=letters, more_after=letters[-1].sequence if more else None)
        letters, more = letters[: len(letters) // 2], True
    yield DeadLettersReply()


def retried_id(request_id: str, sequence: int) -> str:
    """The id of the request that the letter of this sequence becomes: the old one with an end of its own, and
    of the same tenant."""
    end = f"-retry-{sequence}"
    own = subjects.bare_id(request_id)[: MOST_ID_CHARACTERS - len(end)] + end
    return subjects.owned_id(subjects.owner_of(request_id), own)


def ask_again(stored: Stored, request_id: str) -> Ask:
    """The letter's command as a request of its own, with as much time as it had.

    One step of an ensemble or a chain is asked of its model alone: the request that it was a part of has its
    result. Raises InvalidRequest if the letter is no command, UnsupportedVersion if a newer service has to
    read it.
    """
    try:
        command = parse_command(stored.data)
        return _as_ask(command, request_id)
    except (PoisonMessage, ValidationError) as error:
        raise InvalidRequest(
            f"sequence: letter {stored.sequence} cannot be read as a command, so it cannot be asked again; "
            f"`choir dead show {stored.sequence}` shows it, `choir dead drop {stored.sequence}` drops it",
            field="sequence",
        ) from error


def _as_ask(command: Command, request_id: str) -> Ask:
    shared = (Ask.model_fields.keys() & type(command).model_fields.keys()) - {"request_id", "stream"}
    fields = {name: getattr(command, name) for name in shared}
    match command:
        case Generate():
            fields |= {"model": command.model}
        case Gather():
            fields |= {"models": command.members}
        case Summarize():
            fields |= {"model": command.peers[0], "summarize_with": command.peers[1:]}
    had_s = command.deadline_at_s - command.accepted_at_s
    fields |= {"request_id": request_id, "timeout_s": min(max(had_s, SHORTEST_S), LONGEST_S)}
    return Ask(**fields)


def models_of(command: Command) -> tuple[str, ...]:
    """The models that a command is for."""
    match command:
        case Generate():
            return (command.model,)
        case Gather():
            return command.members
        case Summarize():
            return command.peers


def readable(data: bytes) -> str:
    """A message as text: JSON indented, what is no text with marks in the place of its bytes."""
    text = data.decode(errors="backslashreplace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _readable(stored: Stored) -> Command | None:
    try:
        return parse_command(stored.data)
    except (PoisonMessage, UnsupportedVersion):
        return None
