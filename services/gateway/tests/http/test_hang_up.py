"""Who hangs up wants the answer no more: the mesh works on it no longer, as the agent says itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.errors import Cancelled
from schemas.events import ANY_EVENT, Event, TaskCancelled, TaskCompleted, TaskPulled
from services.client.client import Choir
from services.gateway.requests.identity import ID_HEADER, KEY_HEADER, id_of_key
from services.gateway.tests.serving import accepted, serving

LONG_TEXT_S = 60.0
"""So long `choir-long` speaks, as many words as it has tokens."""
LONG_TEXT_TOKENS = 100
SLOW_MACHINE_S = 30.0
"""So much later a machine with much else to do may stop: half of the text is not said then. What it takes on
one that has nothing else to do is measured by `loadtest.bench hang-up`."""
WAIT_S = 180.0
MESSAGES = [{"role": "user", "content": "When?"}]
CHAT = {"messages": MESSAGES, "max_tokens": LONG_TEXT_TOKENS}
RESPONSE = {"input": "When?", "max_output_tokens": LONG_TEXT_TOKENS}
AS_OPENAI_ASKS = {"x-stainless-retry-count": "0"}
MEMBERS = ("choir-long", "choir-one")
WAYS: list[Any] = [
    pytest.param("/api/generate", {"prompt": "When?"}, {}, id="ollama generate"),
    pytest.param("/api/chat", {"messages": MESSAGES}, {}, id="ollama chat"),
    pytest.param("/v1/chat/completions", CHAT, {}, id="openai chat"),
    pytest.param("/v1/chat/completions", CHAT, AS_OPENAI_ASKS, id="openai's own client"),
    pytest.param("/v1/completions", {"prompt": "When?", "max_tokens": 100}, {}, id="openai completion"),
    pytest.param("/v1/responses", RESPONSE, {}, id="openai responses"),
    pytest.param("/v1/messages", CHAT, {}, id="anthropic"),
]


class Agents:
    """What the agents of a mesh tell from now on."""

    def __init__(self, connection: Client, told: Subscription) -> None:
        self._since_s = time.time()
        self._connection = connection
        self._told = told.messages

    async def begin(self) -> TaskPulled:
        """Returns when one of them has begun with the long text.

        What an agent has begun for a test before this one is told some tenths of a second later, when that
        test is over.
        """
        async with asyncio.timeout(WAIT_S):
            while True:
                event = await self._next()
                if (
                    isinstance(event, TaskPulled)
                    and event.model == "choir-long"
                    and event.at_s > self._since_s
                ):
                    return event

    async def stop(self, begun: TaskPulled) -> TaskCancelled:
        """Returns when it goes on no more with what it has begun; it must not come to the end of the text."""
        async with asyncio.timeout(WAIT_S):
            while True:
                event = await self._next()
                if isinstance(event, TaskCancelled | TaskCompleted) and event.task_id == begun.task_id:
                    assert isinstance(event, TaskCancelled), event
                    return event

    async def _next(self) -> Event:
        return ANY_EVENT.validate_json((await anext(self._told)).data)

    async def pieces(self, begun: TaskPulled) -> int:
        """How many pieces of a text there are."""
        subject = subjects.tokens_of(str(begun.request_id))
        info = self._connection.jetstream().stream_info
        return sum(((await info(subjects.TOKENS_STREAM, subject)).state.subjects or {}).values())


@pytest_asyncio.fixture
async def agents(live_mesh: str) -> AsyncIterator[Agents]:
    """The agents of the mesh."""
    connection = await connect_inside(live_mesh)
    told = await connection.subscribe(subjects.events_of("agent"))
    await connection.flush()
    yield Agents(connection, told)
    await connection.close()


@pytest_asyncio.fixture
async def mesh(live_mesh: str) -> AsyncIterator[Choir]:
    """A client of the mesh itself."""
    async with Choir(live_mesh) as choir:
        yield choir


@pytest_asyncio.fixture
async def http(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that begins a stream soon."""
    quick: dict[str, Any] = {"first_byte_s": 0.05, "heartbeat_s": 0.05, "sets": {"late": MEMBERS}}
    async with serving(live_mesh, **quick) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        yield client


@pytest.mark.parametrize(("path", "asked", "headers"), WAYS)
async def test_the_agent_stops_in_the_midst_of_a_stream_that_is_left(
    http: httpx.AsyncClient, mesh: Choir, agents: Agents, path: str, asked: dict[str, Any], headers: Any
) -> None:
    body = {"model": "choir-long", "stream": True, **asked}
    async with http.stream("POST", path, json=body, headers=headers) as reply:
        begun = await agents.begin()
        assert [line async for line in _first(reply.aiter_lines(), 3) if line], (
            "the stream says that it lives"
        )
        request_id = reply.headers[ID_HEADER]
    left_s = time.time()
    stopped = await agents.stop(begun)

    assert stopped.at_s - left_s < SLOW_MACHINE_S
    assert await agents.pieces(begun) <= 1 + (stopped.at_s - begun.at_s) / LONG_TEXT_S * LONG_TEXT_TOKENS
    with pytest.raises(Cancelled):
        await mesh.fetch(request_id, wait_s=WAIT_S)


@pytest.mark.parametrize(("path", "asked", "headers"), WAYS)
async def test_the_agent_stops_with_a_reply_that_nobody_waits_for(
    http: httpx.AsyncClient, agents: Agents, path: str, asked: dict[str, Any], headers: Any
) -> None:
    body = {"model": "choir-long", "stream": False, **asked}
    waiting = asyncio.create_task(http.post(path, json=body, headers=headers))
    begun = await agents.begin()
    waiting.cancel()
    left_s = time.time()
    stopped = await agents.stop(begun)

    assert stopped.at_s - left_s < SLOW_MACHINE_S
    assert stopped.total_duration_ns < LONG_TEXT_S * 1e9


@pytest.mark.parametrize(
    ("path", "asked"), [("/v1/chat/completions", CHAT), ("/api/chat", {"messages": MESSAGES})]
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_the_members_of_an_ensemble_stop_that_nobody_waits_for(
    http: httpx.AsyncClient, mesh: Choir, agents: Agents, path: str, asked: dict[str, Any], *, stream: bool
) -> None:
    body, key = {"model": "choir/majority@late", "stream": stream, **asked}, f"ensemble {path} {stream}"
    waiting = asyncio.create_task(http.post(path, json=body, headers={KEY_HEADER: key}))
    begun = await agents.begin()
    waiting.cancel()
    left_s = time.time()
    stopped = await agents.stop(begun)

    assert stopped.at_s - left_s < SLOW_MACHINE_S
    with pytest.raises(Cancelled):
        await mesh.fetch(id_of_key(key, path, ""), wait_s=WAIT_S)


async def test_of_several_prompts_none_goes_on_when_one_cannot_be(
    http: httpx.AsyncClient, mesh: Choir
) -> None:
    # Given a long text in work
    path, key = "/v1/completions", {KEY_HEADER: "several prompts"}
    request_id = id_of_key(key[KEY_HEADER], path, "")
    body = {"model": "choir-long", "prompt": "When?", "max_tokens": LONG_TEXT_TOKENS}
    alone = asyncio.create_task(http.post(path, json=body, headers=key))
    await accepted(mesh, request_id)
    # When the same is wanted with another one, for which there is no room
    both = await http.post(path, json={**body, "prompt": ["When?", "word " * 9_000]}, headers=key)
    assert both.status_code == 400, both.text
    # Then nobody is to have it any more
    with pytest.raises(Cancelled):
        await mesh.fetch(request_id, wait_s=WAIT_S)
    await alone


async def test_what_was_asked_for_the_background_goes_on_without_its_client(
    http: httpx.AsyncClient, mesh: Choir, agents: Agents
) -> None:
    body = {"model": "choir-long", "stream": True, "background": True, **CHAT}
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        begun = await agents.begin()
        request_id = reply.headers[ID_HEADER]
    assert begun.request_id == request_id
    had = await agents.pieces(begun)
    async with asyncio.timeout(WAIT_S):
        while await agents.pieces(begun) < had + 3:  # noqa: ASYNC110  (the broker is asked)
            await asyncio.sleep(0.1)
    assert await mesh.cancel(request_id), "somebody had cancelled it"
    await agents.stop(begun)


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)
