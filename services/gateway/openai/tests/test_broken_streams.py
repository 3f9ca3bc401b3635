"""Streams that break, over a real mesh: they go on on another gateway, and nothing of the text is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.errors import Cancelled
from services.client import Choir
from services.gateway.tests.serving import serving

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "It is Paris of course"
BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "The capital of France", "max_tokens": 64},
}


class Broken(Exception):
    """Raised for a stream that is refused, or tells an error."""


class Reader:
    """A client that reads a stream event by event, and comes back with the id of its last one."""

    def __init__(self, path: str, key: str | None = None, **body: object) -> None:
        self._path = path
        self._headers = {} if key is None else {"idempotency-key": key}
        self._body = {**BODIES[path], "stream": True, "background": True, **body}
        self._event: dict[str, str] = {}
        self.ids: list[str] = []
        self.text = ""
        self.done = False

    @property
    def request_id(self) -> str:
        return self.ids[0].split(":")[0]

    async def read(self, gateway: str, events: int = 1_000) -> None:
        """Reads so many further events at a gateway, and breaks off."""
        headers = {"last-event-id": self.ids[-1]} if self.ids else self._headers
        async with (
            httpx.AsyncClient(base_url=gateway, timeout=60) as http,
            http.stream("POST", self._path, json=self._body, headers=headers) as reply,
        ):
            if reply.status_code != 200:
                raise Broken((await reply.aread()).decode())
            self._event.clear()
            until = len(self.ids) + events
            async for line in reply.aiter_lines():
                self._take(line)
                if len(self.ids) == until or self.done:
                    return

    def _take(self, line: str) -> None:
        """An event counts when it is complete, with its blank line."""
        name, _, value = line.partition(": ")
        if line:
            self._event[name] = value
            return
        if "id" in self._event:
            self.ids.append(self._event["id"])
        if "data" in self._event:
            self._say(self._event["data"])
        self._event.clear()

    def _say(self, data: str) -> None:
        self.done = data == "[DONE]"
        event = {"choices": []} if self.done else json.loads(data)
        if "error" in event:
            raise Broken(data)
        for choice in event["choices"]:
            self.text += choice.get("text") or choice.get("delta", {}).get("content") or ""


@pytest_asyncio.fixture
async def connection(live_mesh: str) -> AsyncIterator[Client]:
    """A client that may change the streams of the mesh."""
    client = await connect_inside(live_mesh)
    yield client
    await client.close()


async def forget_tokens(connection: Client, request_id: str) -> None:
    """As when they have run out."""
    await connection.jetstream().purge_stream(subjects.TOKENS_STREAM, subject=subjects.tokens_of(request_id))


@pytest.mark.parametrize("path", BODIES)
async def test_streams_go_on_on_another_gateway_with_and_without_their_tokens(
    live_mesh: str, connection: Client, path: str
) -> None:
    async with Choir(live_mesh) as mesh, serving(live_mesh) as other:
        # Given streams of which their clients have more and more events, when their gateway goes
        readers = [Reader(path, model="choir-four") for _ in range(5)]
        async with serving(live_mesh) as first:
            await asyncio.gather(*(reader.read(first, events) for events, reader in enumerate(readers, 1)))

        # When some of them go on at once, and of others the tokens are gone and the result is there
        for reader in readers[::2]:
            await mesh.fetch(reader.request_id, wait_s=30)
            await forget_tokens(connection, reader.request_id)
        await asyncio.gather(*(reader.read(other) for reader in readers))

        # Then each has the text of its result, once
        for reader in readers:
            assert reader.done
            assert reader.text == (await mesh.fetch(reader.request_id)).text == ANSWER
            assert len(set(reader.ids)) == len(reader.ids)


async def test_a_stream_goes_on_where_its_model_is_not_there_any_more(live_mesh: str) -> None:
    async with serving(live_mesh) as gateway:
        reader = Reader("/v1/chat/completions", model="choir-four")
        await reader.read(gateway, 2)
        async with Choir(live_mesh) as mesh:
            await mesh.fetch(reader.request_id, wait_s=30)

        reader._body["model"] = "choir-that-left"
        await reader.read(gateway)

    assert reader.text == ANSWER


async def test_a_stream_that_nobody_keeps_is_cancelled_and_says_so_when_it_is_taken_up(
    live_mesh: str,
) -> None:
    async with serving(live_mesh) as gateway, Choir(live_mesh) as mesh:
        reader = Reader("/v1/chat/completions", model="choir-long", background=False)
        await reader.read(gateway, 2)
        with pytest.raises(Cancelled):
            await mesh.fetch(reader.request_id, wait_s=30)

        async with httpx.AsyncClient(base_url=gateway, timeout=60) as http:
            again = await http.post(
                reader._path, json=reader._body, headers={"last-event-id": reader.ids[-1]}
            )
            wrong = await http.post(reader._path, json=reader._body, headers={"last-event-id": "7"})

    assert "cancelled" in again.text
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "last-event-id")
