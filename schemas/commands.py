"""Imperative messages: somebody is asked to do something, and it may fail.

Times are seconds since the epoch (`..._at_s`); durations name their unit.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.message import Message, Name, Part, RequestId, field_error
from schemas.pipelines import Partition
from schemas.sampling import Sampling
from schemas.subjects import Priority, encode_token

AnswerKind = Literal["auto", "choice", "number", "text"]
Waypoint = Literal["aggregator"]

MAX_MEMBERS = 64


class ChatMessage(Part):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(min_length=1)]


class Ask(Message):
    """A client's request, on `choir.ask` or `choir.submit`.

    Either `prompt` or `messages` says what is asked. `model` alone asks one model; otherwise the
    request goes to an ensemble: `models` (all live models if empty), at most `max_agents` of them,
    decided by each of `strategies` (`majority` if empty). `choices` are the options of a closed
    question; `answer_kind` says how answers are read before voting. The result is decided when all
    members, or `quorum` of them, have answered, or `timeout_s` is over. `request_id` is the
    client's idempotency key: the same request under the same id is one request. `partition` says how a
    pipeline of stages works on a long prompt; without it the pipeline's plan says so.
    """

    request_id: RequestId | None = None
    prompt: Annotated[str, StringConstraints(min_length=1, pattern=r"\S")] | None = None
    messages: tuple[ChatMessage, ...] = ()
    model: Name | None = None
    models: Annotated[tuple[Name, ...], Field(max_length=MAX_MEMBERS)] = ()
    strategies: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    choices: Annotated[tuple[str, ...], Field(max_length=26)] = ()
    answer_kind: AnswerKind = "auto"
    max_agents: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    quorum: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    sampling: Sampling = Sampling()
    timeout_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 60.0
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Ask:
        if (self.prompt is None) == (not self.messages):
            raise field_error("prompt", "exactly one of prompt and messages must be given")
        if self.model is not None and (self.models or self.strategies):
            raise field_error(
                "model", "model asks one model, models and strategies ask an ensemble: not both"
            )
        if len(set(self.models)) != len(self.models):
            raise field_error("models", "a model is named twice")
        if len(set(self.strategies)) != len(self.strategies):
            raise field_error("strategies", "a strategy is named twice")
        return self

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """What is asked, as chat messages."""
        if self.prompt is None:
            return self.messages
        return (ChatMessage(role="user", content=self.prompt),)

    @cached_property
    def fingerprint(self) -> str:
        """What makes two asks the same request: everything but the id and how the reply is delivered."""
        canonical = self.model_dump_json(
            exclude={"request_id", "stream", "timeout_s", "priority", "partition"}
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Generate(Message):
    """One model is to generate one answer (a *task*).

    With an empty `routing_slip` the answer is the request's result; otherwise it is stored as an
    answer, for the first waypoint of the slip to take up.
    """

    request_id: RequestId
    round: Annotated[int, Field(ge=1)] = 1
    agent: Name
    model: Name
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    sampling: Sampling
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    fingerprint: str
    accepted_at_s: float
    deadline_at_s: float
    routing_slip: tuple[Waypoint, ...] = ()

    @property
    def task_id(self) -> str:
        """`<request>.<round>.<agent>`, with the agent's name as a subject token."""
        return f"{self.request_id}.{self.round}.{encode_token(self.agent)}"


class Gather(Message):
    """An aggregator is to ask every member of an ensemble and to decide from their answers."""

    request_id: RequestId
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    strategies: Annotated[tuple[Name, ...], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1)] | None = None
    choices: tuple[str, ...] = ()
    answer_kind: AnswerKind = "auto"
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    sampling: Sampling
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    fingerprint: str
    accepted_at_s: float
    deadline_at_s: float

    def generate(self, member: str, round_: int = 1) -> Generate:
        """The command for one member."""
        return Generate(
            request_id=self.request_id,
            round=round_,
            agent=member,
            model=member,
            messages=self.messages,
            sampling=self.sampling,
            priority=self.priority,
            partition=self.partition,
            stream=self.stream,
            fingerprint=self.fingerprint,
            accepted_at_s=self.accepted_at_s,
            deadline_at_s=self.deadline_at_s,
            routing_slip=("aggregator",),
        )


class Fetch(Message):
    """A client wants the result of a request, now or within `wait_s`.

    With `stream` the token chunks stored after `after_sequence` come first: this is how a client
    that lost its connection resumes.
    """

    request_id: RequestId
    wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    stream: bool = False
    after_sequence: Annotated[int, Field(ge=0)] = 0


class Cancel(Message):
    """A client does not want a request's result any more."""

    request_id: RequestId


class Feedback(Message):
    """A client says what the right answer to a request was, so that weights can learn."""

    request_id: RequestId
    correct: Annotated[str, StringConstraints(min_length=1, max_length=4_096)]


class CountTokens(Message):
    """An agent is asked how many tokens a prompt has for its model."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
