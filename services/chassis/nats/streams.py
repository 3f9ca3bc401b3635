"""Durable steps: publishes that are acknowledged by the broker, and direct reads of what is stored."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from schemas import subjects
from schemas.errors import BrokerUnavailable, Overloaded
from services.chassis.logs import get_logger
from services.chassis.nats.connection import check_payload, envelope_bytes
from services.chassis.telemetry.tracing import current_span

STREAM_FULL = 10077
REASON_CHARACTERS = 512
SHORT_REASON_CHARACTERS = 80
TRACE_BYTES = 128
"""For the trace context that a message gets on its way."""
PUBLISH_TIMEOUT_S = 2.0
OUTCOME_PATIENCE_S = 45.0
DOOR_PATIENCE_S = 4.0
RETRY_AFTER_S = 1.0
READ_TIMEOUT_S = 2.0

_TRANSIENT = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.OutboundBufferLimitError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    BrokerUnavailable,
)

OutcomeT = TypeVar("OutcomeT")

log = get_logger("chassis.storage")


@dataclass(frozen=True)
class Stored:
    """A message as a stream holds it; `traceparent` is the trace context that it carries."""

    subject: str
    sequence: int
    data: bytes
    traceparent: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


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
        return await _patiently(attempt, patience_s, (*_TRANSIENT, Overloaded))

    async def _store_or_see(self, subject: str, payload: bytes) -> bool:
        try:
            await self._publish(subject, payload, None)
        except Overloaded:
            stream = _stream_of(subject)
            if await self.last(stream, subject) is None:
                raise
            return False
        return True

    async def _persist(
        self, subject: str, payload: bytes, headers: dict[str, str], patience_s: float
    ) -> PubAck:
        return await _patiently(partial(self._publish, subject, payload, headers), patience_s, _TRANSIENT)

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> PubAck:
        if (span := current_span()) is not None:
            headers = {**(headers or {}), subjects.TRACE_HEADER: span.traceparent}
        try:
            ack = await self._js.publish(subject, payload, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == STREAM_FULL:
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
        """The first message on `subject` at `sequence` or after; None if there is none."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def last_sequence(self, stream: str) -> int:
        """The sequence number of the message stored last; 0 if there never was one."""
        try:
            info = await self._js.stream_info(stream)
        except _TRANSIENT as error:
            raise BrokerUnavailable(f"stream {stream} could not be read") from error
        return info.state.last_seq

    async def _get(self, stream: str, query: Mapping[str, object]) -> Stored | None:
        request = json.dumps(query).encode()
        try:
            reply = await self._client.request(subjects.direct_get(stream), request, timeout=READ_TIMEOUT_S)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
            raise BrokerUnavailable(f"stream {stream} could not be read") from error
        headers = reply.headers or {}
        status = headers.get("Status")
        if status == "404":
            return None
        if status is not None:
            raise BrokerUnavailable(f"stream {stream}: {status} {headers.get('Description', '')}")
        return Stored(
            headers[subjects.SUBJECT_HEADER],
            int(headers[subjects.SEQUENCE_HEADER]),
            reply.data,
            headers.get(subjects.TRACE_HEADER),
            headers,
        )


def _stream_of(subject: str) -> str:
    answers = subject.startswith(subjects.ALL_ANSWERS.removesuffix(">"))
    return subjects.ANSWERS_STREAM if answers else subjects.RESULTS_STREAM


async def _patiently(
    attempt: Callable[[], Awaitable[OutcomeT]], patience_s: float, errors: tuple[type[Exception], ...]
) -> OutcomeT:
    """Tries again with growing, random pauses for as long as `patience_s`; then BrokerUnavailable.

    Nearly every first attempt succeeds, so the machinery for more is set up only when one has failed.
    """
    try:
        return await attempt()
    except errors as error:
        log.warning("not stored yet, trying again", why=str(error) or type(error).__name__)
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(errors),
        stop=stop_after_delay(patience_s),
        wait=wait_random_exponential(multiplier=0.05, max=1.0),
    )
    try:
        return await retrying(attempt)
    except RetryError as error:
        raise BrokerUnavailable(
            f"the broker did not store the message within {patience_s} s", retry_after_s=RETRY_AFTER_S
        ) from error
