"""A router in the test's own loop, models that seem to be served, and the plainest of clients."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import DEADLINE_S, eventually, open_mesh, settled
from schemas import subjects
from schemas.commands import Gather, Generate, Summarize
from schemas.ensembles.named import Ensemble
from schemas.errors import ErrorBody
from schemas.nodes.lease import ServedModel
from schemas.replies import Answer, ErrorReply, Result, TokenChunk
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.registry.ensembles import Ensembles
from services.chassis.registry.lease import Lease, Load
from services.router.queued import queued_command
from services.router.service import Router
from services.router.settings import RouterSection

MODELS = ("alpha", "beta", "gamma")
CAPABILITIES = {"gamma": ("completion",)}
CONTEXT_TOKENS = 200
PREFIX = "9mJkq0Zt"
"""What an agent tells others of a prompt that it keeps."""


class Front:
    """What a test has in hand: the router's mesh, and a client's connection."""

    def __init__(
        self, mesh: ServiceContext, client: Client, lease: Lease, weights: list[str], router: Router
    ) -> None:
        self.mesh = mesh
        self.router = router
        self.client = client
        self._lease = lease
        self._weights = weights

    async def request(self, subject: str, **fields: Any) -> Msg:
        """One request, one reply."""
        return await self.client.request(subject, json.dumps(fields).encode(), timeout=DEADLINE_S)

    async def ask(self, **fields: Any) -> Result:
        """Asks and waits for the result."""
        return Result.model_validate_json((await self.request(subjects.ASK, **fields)).data)

    async def refused(self, subject: str, **fields: Any) -> ErrorBody:
        """Asks for what must be refused."""
        reply = await self.request(subject, **fields)
        assert subjects.ERROR_CODE_HEADER in (reply.headers or {}), reply.data
        return ErrorReply.model_validate_json(reply.data).error

    async def exchange(self, weights: str) -> None:
        """Other weights under the same names; returns when the router has heard of it."""
        self._weights.append(weights)
        self._lease.renew_soon()

        async def heard() -> bool:
            return weights.encode() in (await self.request(subjects.MODELS)).data

        await eventually(heard)

    async def stored(self) -> int:
        """How many commands have ever been stored."""
        return await self.mesh.storage.last_sequence(subjects.COMMANDS_STREAM)

    async def command(self, request_id: str) -> Generate | Gather | Summarize:
        """The command of a request, once it is in the queue."""

        async def find() -> Generate | Gather | Summarize | None:
            return await queued_command(self.mesh.storage, request_id)

        return await eventually(find)

    async def finish(self, request_id: str, text: str = "the giraffe", chunks: int = 0) -> None:
        """Does what an agent does: stores the result, and takes the command off the queue."""
        command = await self.command(request_id)
        answer = Answer(
            request_id=request_id,
            agent="alpha",
            model="alpha",
            instance="agent-1",
            text=text,
            finish_reason="stop",
            chunks=chunks,
        )
        result = Result(
            request_id=request_id,
            fingerprint=command.fingerprint,
            topology="single",
            text=text,
            answers=(answer,),
            accepted_at_s=command.accepted_at_s,
            completed_at_s=time.time(),
        )
        await self.mesh.storage.store_once(subjects.result(request_id), result.to_bytes())
        for subject in subjects.commands_of(request_id):
            found = await self.mesh.storage.last(subjects.COMMANDS_STREAM, subject)
            if found is not None:
                await self.client.jetstream().delete_msg(subjects.COMMANDS_STREAM, found.sequence)

    async def say(
        self,
        request_id: str,
        index: int,
        text: str,
        done: bool = False,
        attempt: int = 1,
        agent: str = "alpha",
    ) -> None:
        """Does what an agent does while it generates."""
        chunk = TokenChunk(
            request_id=request_id, agent=agent, index=index, text=text, done=done, attempt=attempt
        )
        await self.client.publish(subjects.token(request_id, agent), chunk.to_bytes())


class Stream:
    """Several replies to one request, as they come."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._inbox = front.client.new_inbox()

    async def open(self, subject: str, **fields: Any) -> Stream:
        self._replies = await self._front.client.subscribe(self._inbox)
        await self._front.client.publish(subject, json.dumps(fields).encode(), reply=self._inbox)
        return self

    async def chunk(self) -> TokenChunk:
        """The next reply, which is a piece of text."""
        reply = await self._replies.next_msg(DEADLINE_S)
        assert (reply.headers or {})[subjects.KIND_HEADER] == "token", reply.data
        return TokenChunk.model_validate_json(reply.data)

    async def error(self) -> ErrorBody:
        """The next reply, which is an error."""
        return ErrorReply.model_validate_json((await self._replies.next_msg(DEADLINE_S)).data).error

    async def result(self) -> Result:
        """The next reply, which is the result."""
        reply = await self._replies.next_msg(DEADLINE_S)
        assert (reply.headers or {})[subjects.KIND_HEADER] == "result", reply.data
        return Result.model_validate_json(reply.data)


@asynccontextmanager
async def open_front(client: Client, url: str, **settings: Any) -> AsyncIterator[Front]:
    """A router on a connection of its own, and leases of three models that nobody works for.

    Among its settings `ensembles` are those that a host's choir.toml says, and `instance` is its name.
    """
    ensembles: tuple[Ensemble, ...] = settings.pop("ensembles", ())
    instance: str = settings.pop("instance", "router-1")
    connection = await nats.connect(url)
    weights = ["first weights"]

    def load() -> Load:
        served = (
            ServedModel(
                name=name,
                backend="instant",
                slots=2,
                context_tokens=CONTEXT_TOKENS,
                capabilities=CAPABILITIES.get(name, ()),
                identity=weights[-1],
                prefixes=(PREFIX,),
            )
            for name in MODELS
        )
        return Load(slots=6, busy=1, models=tuple(served))

    lease = Lease(connection, Identity("agent", "agent-1"), load)
    await lease.start()
    mesh = open_mesh(connection, "router", instance)
    undisturbed = {"undisturbed_s": DEADLINE_S}  # a test that takes long all the same has what it waits for
    router = Router(RouterSection(**undisturbed | settings))
    await Ensembles(connection).declare("the-host", ensembles)
    await router.start(mesh)
    await settled(connection)
    try:
        yield Front(mesh, client, lease, weights, router)
    finally:
        await router.stop()
        await lease.stop()
        await connection.close()
