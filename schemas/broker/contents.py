"""Payloads that are no messages of this contract: bytes, words, and what belongs to the broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from schemas.message import Message
from schemas.pipelines.stages import SequenceStart


@dataclass(frozen=True)
class Content:
    """A payload that is no message: its media type and JSON schema, and the messages `within` it."""

    name: str
    why: str
    media_type: str = "application/json"
    schema: dict[str, Any] = field(default_factory=dict, hash=False)
    within: tuple[type[Message], ...] = ()


Payload = type[Message] | Content

EMPTY = Content(
    "Empty", "no bytes: the subject says it all", "text/plain", {"type": "string", "maxLength": 0}
)
BINARY = {"type": "string", "format": "binary"}
STAGE_ITEMS = Content(
    "StageItems",
    "frames, starts, tokens and times in bytes, one after another: schemas/README.md has more; "
    "the body of a start is a SequenceStart",
    "application/octet-stream",
    BINARY,
    within=(SequenceStart,),
)
FILE_PIECE = Content(
    "FilePiece",
    "so many bytes of a file, or a line of a batch's output",
    "application/octet-stream",
    BINARY,
)
FILE_RANGE = Content(
    "FileRange", "the bytes of a file that were asked for", "application/octet-stream", BINARY
)
PROBE = Content(
    "Probe",
    "bytes by which a service measures the way through the broker, and back to itself",
    "application/octet-stream",
    BINARY,
)
CANARY = Content(
    "Canary",
    "bytes that nobody reads: whether they are stored is the question",
    "application/octet-stream",
    BINARY,
)
DEAD_LETTER = Content(
    "DeadLetter", "the message as it was, or its beginning", "application/octet-stream", BINARY
)
ADVISORY = Content(
    "MaxDeliveries", "the broker's io.nats.jetstream.advisory.v1.max_deliver", schema={"type": "object"}
)
PONG = Content("Pong", "the services API's io.nats.micro.v1.ping_response", schema={"type": "object"})
HOLDER = Content("Holder", "the name of the agent's instance", "text/plain", {"type": "string"})
KEY_USE = Content(
    "KeyUse", "tokens by the second, as `1700000000:12 1700000001:7`", "text/plain", {"type": "string"}
)
KEY_REQUESTS = Content(
    "KeyRequests", "requests by the second, as `1700000000:2 1700000001:1`", "text/plain", {"type": "string"}
)
KEY_PLACES = Content(
    "KeyPlaces",
    "for each gateway how many requests, and until when that holds, as `3f2a90c1b2d4:2:1700000030`",
    "text/plain",
    {"type": "string"},
)
RETRIED = Content(
    "Retried",
    "a number, and a minus if the connection is gone; at `keyed` a hash of what was asked",
    "text/plain",
    {"type": "string"},
)
ENDING = Content(
    "Ending",
    "`refused`, `alone` or `failed`, the last with a blank and an ErrorBody as JSON where there is one",
    "text/plain",
    {"type": "string", "pattern": "^(refused|alone|failed)( \\{.*\\})?$"},
)
LEARNT = Content(
    "Learnt", "the aggregators' own: `choir.scores` tells it to clients", schema={"type": "object"}
)
FEEDBACK_UPDATE = Content("FeedbackUpdate", "the aggregators' own", schema={"type": "object"})
COUNTED = Content(
    "Counted", "eight bytes in hexadecimal, of who counted it", "text/plain", {"type": "string"}
)
