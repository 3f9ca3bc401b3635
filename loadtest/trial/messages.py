"""Faults of messages and leaders: commands that come twice, that nobody can read, that are of a newer
version."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from loadtest.chaos import Chaos, Fault, Verb
from loadtest.trial.hosts import MODELS
from schemas import subjects
from services.chassis.nats.connecting.ending import end_in_time
from services.client.finding.mesh_url import find_mesh

CAPTURE_S = 1.0
MOST_COPIES = 20
NEWER_VERSION = 99
NEWER_LIVES_S = 8.0


class MessageStrikes:
    """What can be done by whoever has every right. `poisoned` and `newer` are the ids of the requests that
    it has made up."""

    def __init__(self, url: str, run: str) -> None:
        self._url = url
        self._run = run
        self._made_up = 0
        self.poisoned: list[str] = []
        self.newer: list[str] = []

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Verb -> what does it."""
        own = {
            "elect": self._elect,
            "duplicate": self._duplicate,
            "poison": self._poison,
            "outdate": self._outdate,
        }
        return {verb: for_chaos(strike) for verb, strike in own.items()}

    async def _elect(self, _fault: Fault) -> str:
        """Every stream that has copies gets another leader."""
        names = (subjects.COMMANDS_STREAM, subjects.RESULTS_STREAM, subjects.ANSWERS_STREAM)
        async with self._client() as client:
            for name in names:
                with contextlib.suppress(nats.errors.TimeoutError):
                    await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{name}", b"", timeout=3)
            with contextlib.suppress(nats.errors.TimeoutError):
                consumer = subjects.generate_consumer("interactive", MODELS[0])
                subject = f"$JS.API.CONSUMER.LEADER.STEPDOWN.{names[0]}.{consumer}"
                await client.request(subject, b"", timeout=3)
        return f"new leaders for {', '.join(names)} and a queue"

    async def _duplicate(self, _fault: Fault) -> str:
        """Commands that are under way come once more, as after a lost acknowledgement, without their id."""
        async with self._client() as client:
            copies = await _captured(client)
            for msg in copies:
                with contextlib.suppress(nats.errors.Error):
                    await client.jetstream().publish(msg.subject, msg.data)
        return f"{len(copies)} commands came twice"

    async def _poison(self, _fault: Fault) -> str:
        self._made_up += 1
        request_id = f"{self._run}-poison-{self._made_up}"
        async with self._client() as client:
            await client.jetstream().publish(
                subjects.generate("interactive", MODELS[0], request_id), b'{"no": "command'
            )
        self.poisoned.append(request_id)
        return "a command that nobody can read"

    async def _outdate(self, _fault: Fault) -> str:
        """A host of a newer version sends a command that no service here can read yet."""
        async with self._client() as client:
            copies = await _captured(client)
            for msg in copies[:1]:
                self._made_up += 1
                request_id = f"{self._run}-newer-{self._made_up}"
                command = json.loads(msg.data)
                command |= {"schema_version": NEWER_VERSION, "request_id": request_id, "of_the_future": True}
                command["deadline_at_s"] = command["deadline_at_s"] - 60 + NEWER_LIVES_S
                model = command.get("model", MODELS[0])
                await client.jetstream().publish(
                    subjects.generate("interactive", model, request_id), json.dumps(command).encode()
                )
                self.newer.append(request_id)
        return f"{len(copies[:1])} command of a newer version"

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = await inside(self._url)
        try:
            yield client
        finally:
            await client.close()


async def inside(url: str) -> Client:
    """A client with every right."""

    async def failed(_error: Exception) -> None:
        """A broker that is gone is what is tested."""

    end_in_time()
    mesh = find_mesh(url)
    return await nats.connect(
        mesh.servers,
        **mesh.credentials,
        inbox_prefix=subjects.inbox_prefix("loadtest").encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        error_cb=failed,
    )


def for_chaos(strike: Callable[[Fault], Awaitable[str]]) -> Verb:
    """A strike in the form that loadtest/chaos.py has for its own."""

    async def struck(_chaos: Chaos, fault: Fault) -> str:
        return await strike(fault)

    return struck


async def _captured(client: Client) -> list[Msg]:
    """Commands to agents that are published now."""
    found: list[Msg] = []

    async def keep(msg: Msg) -> None:
        if len(found) < MOST_COPIES:
            found.append(msg)

    subscription = await client.subscribe(subjects.every_generate(), cb=keep)
    await asyncio.sleep(CAPTURE_S)
    await subscription.unsubscribe()
    return found
