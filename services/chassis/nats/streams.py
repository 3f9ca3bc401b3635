"""Durable steps: publishes that are acknowledged by the broker, and reads of what is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from schemas import subjects
from schemas.errors import BrokerUnavailable, Overloaded
from services.chassis.logs import get_logger
from services.chassis.nats.connection import check_payload, clustered, envelope_bytes
from services.chassis.nats.election import ELECTION_PATIENCE_S, passes, stream_is_full
from services.chassis.nats.reading import READ_TIMEOUT_S, Stored, get_direct, get_many, get_of_leader
from services.chassis.telemetry.tracing import current_span

REASON_CHARACTERS = 512
SHORT_REASON_CHARACTERS = 80
TRACE_BYTES = 128
"""For the trace context that a message gets on its way."""
PUBLISH_TIMEOUT_S = 2.0
OUTCOME_PATIENCE_S = 45.0
DOOR_PATIENCE_S = 4.0
READ_PATIENCE_S = 4.0
RETRY_AFTER_S = 1.0


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, BrokerUnavailable) or passes(error)


def _may_pass_or_make_room(error: BaseException) -> bool:
    return isinstance(error, Overloaded) or _may_pass(error)


OutcomeT = TypeVar("OutcomeT")

log = get_logger("chassis.storage")


@dataclass(frozen=True)
class PubAck:
    """The broker's word that a message is stored; `duplicate` if it was there before, at `sequence`."""

    sequence: int
    duplicate: bool


class Storage:
    """The streams of the mesh, as one service writes and reads them.

    What is written for a request carries its trace context.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = JetStreamContext(client, timeout=PUBLISH_TIMEOUT_S)

    @property
    def client(self) -> Client:
        """The connection underneath."""
        return self._client

    async def enqueue(
        self, subject: str, payload: bytes, message_id: str, patience_s: float = DOOR_PATIENCE_S
    ) -> PubAck:
        """Stores a command; a second one of the same `message_id` is a duplicate.

        Raises PayloadTooLarge, Overloaded if the queue is full, BrokerUnavailable after `patience_s`.
        """
        check_payload(self._client, payload)
        headers = {subjects.MESSAGE_ID_HEADER: message_id}
        return await self._persist(subject, payload, headers, patience_s)

    async def store_once(self, subject: str, payload: bytes, patience_s: float = OUTCOME_PATIENCE_S) -> bool:
        """Stores an outcome on a write-once subject. False if the subject has one already.

        Raises PayloadTooLarge, or BrokerUnavailable after `patience_s`.
        """
        check_payload(self._client, payload, field="answer")
        attempt = partial(self._store_or_see, subject, payload)
        return await self._patiently(attempt, patience_s, _may_pass_or_make_room)

    async def _store_or_see(self, subject: str, payload: bytes) -> bool:
        try:
            await self._publish(subject, payload, None)
        except Overloaded:
            found = await self.last(_stream_of(subject), subject)
            if found is None:
                raise
            return found.data == payload  # it is our own where the word of the first attempt was lost
        return True

    async def _persist(
        self, subject: str, payload: bytes, headers: dict[str, str], patience_s: float
    ) -> PubAck:
        attempt = partial(self._publish, subject, payload, headers)
        return await self._patiently(attempt, patience_s, _may_pass)

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> PubAck:
        if (span := current_span()) is not None:
            headers = {**(headers or {}), subjects.TRACE_HEADER: span.traceparent}
        try:
            ack = await self._js.publish(subject, payload, headers=headers)
        except nats.js.errors.APIError as error:
            if stream_is_full(error):
                raise Overloaded(
                    "the queue of work is full, try again later", retry_after_s=RETRY_AFTER_S
                ) from error
            raise
        return PubAck(ack.seq, bool(ack.duplicate))

    async def dead_letter(self, service: str, request_id: str, payload: bytes, reason: str) -> None:
        """Keeps a message that could not be worked on, with the reason in a header.

        The largest commands leave no room for that: the reason is cut then, and if need be the message, which
        the reason says.
        """
        headers = {subjects.REASON_HEADER: " ".join(reason.split())[:REASON_CHARACTERS]}
        room = self._client.max_payload - TRACE_BYTES
        if envelope_bytes(headers) + len(payload) > room:
            short = headers[subjects.REASON_HEADER][:SHORT_REASON_CHARACTERS]
            headers = {subjects.REASON_HEADER: short}
            if envelope_bytes(headers) + len(payload) > room:
                headers = {subjects.REASON_HEADER: f"cut from {len(payload)} bytes: {short}"}
                payload = payload[: room - envelope_bytes(headers)]
        await self._persist(subjects.dead(service, request_id), payload, headers, OUTCOME_PATIENCE_S)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message on `subject` (wildcards allowed); None if there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message at `sequence`; None if it is gone."""
        return await self._get(stream, {"seq": sequence})

    async def next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """The first message on `subject` at `sequence` or after; None if there is none.

        A `subject` without wildcards is looked up. For one with wildcards a stream in memory that has many
        subjects is read from `sequence` on, message by message.
        """
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def last_of_each(self, stream: str, subject: str) -> list[Stored]:
        """The last message on every subject that `subject` takes in with its wildcards, oldest first. Any
        server that has the stream answers. Raises BrokerUnavailable."""
        query = {"multi_last": [subject]}
        found = await get_many(self._client, stream, query, patience_s=READ_TIMEOUT_S)
        return sorted(found, key=lambda stored: stored.sequence)

    async def last_sequence(self, stream: str) -> int:
        """The sequence number of the message stored last; 0 if there never was one."""
        try:
            info = await self._js.stream_info(stream)
        except nats.errors.Error as error:
            raise _unreadable(stream, error) from error
        return info.state.last_seq

    async def _patiently(
        self,
        attempt: Callable[[], Awaitable[OutcomeT]],
        patience_s: float,
        again: Callable[[BaseException], bool],
    ) -> OutcomeT:
        """A cluster may be choosing a leader, which takes longer than a single broker is ever silent."""
        if clustered(self._client):
            patience_s = max(patience_s, ELECTION_PATIENCE_S)
        return await _patiently(attempt, patience_s, again)

    async def _get(self, stream: str, query: Mapping[str, object]) -> Stored | None:
        """Where there is one broker it is asked directly, which is faster; of several the leader is asked."""
        get = get_of_leader if clustered(self._client) else get_direct
        return await self._patiently(partial(get, self._client, stream, query), READ_PATIENCE_S, _may_pass)


def _unreadable(stream: str, error: nats.errors.Error) -> Exception:
    return BrokerUnavailable(f"stream {stream} could not be read") if passes(error) else error


def _stream_of(subject: str) -> str:
    answers = subject.startswith(subjects.ALL_ANSWERS.removesuffix(">"))
    return subjects.ANSWERS_STREAM if answers else subjects.RESULTS_STREAM


async def _patiently(
    attempt: Callable[[], Awaitable[OutcomeT]], patience_s: float, again: Callable[[BaseException], bool]
) -> OutcomeT:
    """Tries again with growing, random pauses for as long as `patience_s`; then BrokerUnavailable.

    Nearly every first attempt succeeds, so the machinery for more is set up only when one has failed.
    """
    try:
        return await attempt()
    except Exception as error:
        if not again(error):
            raise
        log.warning("not done yet, trying again", why=str(error) or type(error).__name__)
    retrying = AsyncRetrying(
        retry=retry_if_exception(again),
        stop=stop_after_delay(patience_s),
        wait=wait_random_exponential(multiplier=0.05, max=1.0),
    )
    try:
        return await retrying(attempt)
    except RetryError as error:
        raise BrokerUnavailable(
            f"the broker did not store or read the message within {patience_s} s", retry_after_s=RETRY_AFTER_S
        ) from error
