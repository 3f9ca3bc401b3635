"""What the tests of all services stand on: a mesh around a connection, commands, and patient waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, overload

import nats.errors
from nats.aio.client import Client
from nats.js.api import StreamState
from nats.js.errors import NotFoundError

from schemas import subjects
from schemas.broker import catalog
from schemas.commands import ChatMessage, Gather, Generate
from schemas.errors import BrokerUnavailable
from schemas.events import ANY_EVENT, AnyEvent, RequestCompleted
from schemas.replies import Result, Topology
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents

DEADLINE_S = 180.0
POLL_S = 0.01
TRIES = 6

T = TypeVar("T")


def open_mesh(client: Client, service: str = "agent", instance: str | None = None) -> ServiceContext:
    """What a service is given, around a connection of the test's."""
    return ServiceContext(client, Identity.of(service, instance), ConnectionEvents())


@overload
async def eventually(probe: Callable[[], Awaitable[T | None]], deadline_s: float = DEADLINE_S) -> T: ...
@overload
async def eventually(probe: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T: ...
async def eventually(probe: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """The first value of `probe` that is true. It may be asynchronous; TimeoutError after the deadline.

    A broker that stands still for a moment, as on a busy host, is asked again.
    """
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                value = probe()
                if isinstance(value, Awaitable):
                    value = await value
            except (BrokerUnavailable, nats.errors.TimeoutError):
                value = None
            if value:
                return value
            await asyncio.sleep(POLL_S)


async def in_time(
    attempt: Callable[[str, float], Awaitable[T]], began: Callable[[T], bool], first_s: float
) -> T:
    """What `attempt(request_id, timeout_s)` gives once what its time is to cut off had `began` before that:
    on a busy machine the time may be over earlier. Then it is tried again, with twice the time."""
    for number in range(TRIES):
        outcome = await attempt(f"r{number + 1}", first_s * 2**number)
        if began(outcome):
            break
    return outcome


def generate(
    request_id: str = "r1", model: str = "alpha", *, timeout_s: float = 60.0, **fields: Any
) -> Generate:
    """A task that anybody would take."""
    now_s = time.time()
    defaults: dict[str, Any] = {
        "agent": model,
        "messages": (ChatMessage(role="user", content="What is the tallest animal?"),),
        "sampling": Sampling(),
        "fingerprint": "f",
        "accepted_at_s": now_s,
        "deadline_at_s": now_s + timeout_s,
    }
    return Generate(request_id=request_id, model=model, **(defaults | fields))


def gather(request_id: str, members: tuple[str, ...], *, timeout_s: float = 60.0, **fields: Any) -> Gather:
    """An ensemble that anybody would gather."""
    now_s = time.time()
    defaults: dict[str, Any] = {
        "strategies": ("majority",),
        "messages": (ChatMessage(role="user", content="What is the tallest animal?"),),
        "sampling": Sampling(),
        "fingerprint": "f",
        "accepted_at_s": now_s,
        "deadline_at_s": now_s + timeout_s,
    }
    return Gather(request_id=request_id, members=members, **(defaults | fields))


def finished(request_id: str = "r1", topology: Topology = "single", **fields: Any) -> Result:
    """The result of a request that somebody has finished already."""
    defaults: dict[str, Any] = {"text": "done", "fingerprint": "f", "accepted_at_s": 1, "completed_at_s": 2}
    return Result(request_id=request_id, topology=topology, **(defaults | fields))


async def enqueue(mesh: ServiceContext, command: Generate | Gather) -> None:
    """Stores a command where its takers look for it."""
    if isinstance(command, Gather):
        subject, message_id = subjects.gather(command.priority, command.request_id), command.request_id
    else:
        subject = subjects.generate(command.priority, command.model, command.request_id)
        message_id = command.task_id
    await mesh.storage.enqueue(subject, command.to_bytes(), message_id=message_id)


async def completions(client: Client) -> list[RequestCompleted]:
    """The requests that events say are completed, once there are any."""

    async def told() -> list[RequestCompleted]:
        return [event for event in await events(client) if isinstance(event, RequestCompleted)]

    return await eventually(told)


async def settled(client: Client) -> None:
    """Returns when the broker has read everything that this client has sent so far.

    The ping of nats-py's `flush` may overtake what is still in its buffer; a second cannot.
    """
    await client.flush()
    await client.flush()


async def state(client: Client, stream: str) -> StreamState:
    """What a stream holds now."""
    return (await client.jetstream().stream_info(stream)).state


async def queued(client: Client) -> int:
    """How many commands are in the queue or in work."""
    return (await state(client, subjects.COMMANDS_STREAM)).messages


async def queue_is_empty(client: Client) -> bool:
    """Whether everything that was asked for is done."""
    return await queued(client) == 0


async def bodies(client: Client, stream: str) -> list[bytes]:
    """All messages of a stream, oldest first."""
    held = await state(client, stream)
    js = client.jetstream()
    messages = [
        await js.get_msg(stream, seq=sequence)
        for sequence in range(held.first_seq, held.last_seq + 1)
        if held.messages
    ]
    return [message.data or b"" for message in messages]


async def all_kept(client: Client) -> str:
    """Every message of every stream and bucket: subjects, headers and bodies."""
    js, told = client.jetstream(timeout=DEADLINE_S), []
    names = [
        *(spec.name for spec in catalog.STREAMS),
        *(subjects.bucket_stream(spec.name) for spec in catalog.BUCKETS),
    ]
    for name in names:
        held = (await js.stream_info(name)).state
        for sequence in range(held.first_seq, held.last_seq + 1) if held.messages else ():
            with suppress(NotFoundError):  # another one was put in its place
                message = await js.get_msg(name, seq=sequence)
                told.append(f"{message.subject} {message.headers} {message.data!r}")
    return "\n".join(told)


async def events(client: Client) -> list[AnyEvent]:
    """Everything that has happened so far, as the EVENTS stream holds it."""
    return [ANY_EVENT.validate_json(body) for body in await bodies(client, subjects.EVENTS_STREAM)]
