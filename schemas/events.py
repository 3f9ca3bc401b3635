"""Facts in the past tense: everything that happened, one message each, for whoever wants to know.

No prompt and no answer is in an event. Durations are in nanoseconds, times in seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.errors import ErrorBody
from schemas.message import Message, RequestId
from schemas.replies import FinishReason, Timings, Topology


class Event(Message):
    """What all events carry; `trace_id` and `span_id` are W3C trace context where there is one."""

    kind: str
    event_id: str
    at_s: float
    service: str
    instance: str
    request_id: RequestId | None = None
    task_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None


class ServiceStarted(Event):
    """A service instance is ready for work."""

    kind: Literal["service_started"] = "service_started"
    host: str
    pid: int


class ServiceStopped(Event):
    """A service instance has drained its work and ends."""

    kind: Literal["service_stopped"] = "service_stopped"


class RequestAccepted(Event):
    """A request's one command has been stored."""

    kind: Literal["request_accepted"] = "request_accepted"
    topology: Topology
    models: tuple[str, ...]
    strategies: tuple[str, ...] = ()
    prompt_bytes: int


class RequestRefused(Event):
    """A request was turned away at the door, and nothing was stored."""

    kind: Literal["request_refused"] = "request_refused"
    error: ErrorBody


class RequestReplied(Event):
    """A result was handed to the client that waited for it."""

    kind: Literal["request_replied"] = "request_replied"
    total_duration_ns: int
    error: ErrorBody | None = None


class RequestCancelled(Event):
    """A client's cancellation came before any other result."""

    kind: Literal["request_cancelled"] = "request_cancelled"


class TaskPulled(Event):
    """An agent has taken a task from the queue; `delivery` counts from 1."""

    kind: Literal["task_pulled"] = "task_pulled"
    model: str
    delivery: int
    queue_duration_ns: int


class TaskCompleted(Event):
    """An agent's answer has been stored."""

    kind: Literal["task_completed"] = "task_completed"
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    timings: Timings
    error: ErrorBody | None = None


class TaskRetried(Event):
    """A command went back to the queue."""

    kind: Literal["task_retried"] = "task_retried"
    delivery: int
    error: ErrorBody


class DecisionMade(Event):
    """A strategy has decided."""

    kind: Literal["decision_made"] = "decision_made"
    strategy: str
    agents: int
    abstained: int
    missing: int
    share: float
    margin: float
    tie: bool


class FeedbackReceived(Event):
    """A client has said what was right."""

    kind: Literal["feedback_received"] = "feedback_received"
    right: tuple[str, ...]
    wrong: tuple[str, ...]


class MessageDied(Event):
    """A message could not be worked on and lies in DEAD."""

    kind: Literal["message_died"] = "message_died"
    error: ErrorBody


AnyEvent = Annotated[
    ServiceStarted
    | ServiceStopped
    | RequestAccepted
    | RequestRefused
    | RequestReplied
    | RequestCancelled
    | TaskPulled
    | TaskCompleted
    | TaskRetried
    | DecisionMade
    | FeedbackReceived
    | MessageDied,
    Field(discriminator="kind"),
]

ANY_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)
