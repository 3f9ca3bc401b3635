"""A request reaches its result, whatever happens on the way: a real broker, and routers that fail as told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.broker import Broker
from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.commands import Ask, Fetch
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    DeadlineExceeded,
    MeshUnreachable,
    NotReady,
    UnknownRequest,
)
from schemas.message import Message
from schemas.replies import Answer, ErrorReply, Result, TokenChunk
from services.client import reliable_request, silence
from services.client.client import Choir
from services.client.request_builder import build_ask

T = TypeVar("T", bound=Message)
Reply = Callable[[Client, Msg], Awaitable[None]]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not taken for silence; that nobody is there at all is noticed soon."""
    monkeypatch.setattr(reliable_request, "SLICE_S", 180.0)
    monkeypatch.setattr(silence, "NOTICE_AFTER_S", 0.3)
    monkeypatch.setattr("services.client.client.CALL_PATIENCE_S", 1.0)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon."""
    monkeypatch.setattr(reliable_request, "SLICE_S", 0.3)
    monkeypatch.setattr(reliable_request, "REPLY_MARGIN_S", 0.2)


def a_result(request_id: str, text: str = "Paris") -> Result:
    return Result(
        request_id=request_id,
        fingerprint="",
        topology="single",
        text=text,
        accepted_at_s=1.0,
        completed_at_s=2.0,
    )


def answered(request_id: str, text: str) -> Result:
    """A result with the answer that it is."""
    answer = Answer(
        request_id=request_id,
        agent="alpha",
        model="alpha",
        instance="agent-1",
        text=text,
        finish_reason="stop",
    )
    return a_result(request_id, text).model_copy(update={"answers": (answer,)})


async def send(router: Client, msg: Msg, reply: Result | TokenChunk | ErrorReply) -> None:
    await router.publish(msg.reply, reply.to_bytes(), headers={subjects.KIND_HEADER: reply.kind})


async def send_error(router: Client, msg: Msg, error: ChoirError) -> None:
    await send(router, msg, ErrorReply(error=error.body()))


class StubRouter:
    """Answers each ask and each fetch with the next of the replies it was given; the last one stays."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asks: list[Ask] = []
        self.fetches: list[Fetch] = []

    async def serve(self, asks: list[Reply], fetches: list[Reply]) -> None:
        for ask, fetch in ((subjects.ASK, subjects.FETCH), (subjects.STREAM_ASK, subjects.STREAM_FETCH)):
            await self._on(subjects.doors(ask), Ask, self.asks, asks)
            await self._on(subjects.doors(fetch), Fetch, self.fetches, fetches)
        await self._client.flush()

    async def _on(self, subject: str, kind: type[T], seen: list[T], replies: list[Reply]) -> None:
        async def take(msg: Msg) -> None:
            seen.append(kind.model_validate_json(msg.data))
            await replies[min(len(seen), len(replies)) - 1](self._client, msg)

        await self._client.subscribe(subject, cb=take)


async def nothing(_router: Client, _msg: Msg) -> None:
    """A router that has died."""


async def the_result(router: Client, msg: Msg) -> None:
    await send(router, msg, a_result(Fetch.model_validate_json(msg.data).request_id))


def an_error(error: ChoirError) -> Reply:
    async def reply(router: Client, msg: Msg) -> None:
        await send_error(router, msg, error)

    return reply


@pytest.mark.usefixtures("impatient")
async def test_when_the_router_falls_silent_the_result_is_fetched(mesh_url: str, connection: Client) -> None:
    router = StubRouter(connection)
    await router.serve([nothing], [the_result])
    async with Choir(mesh_url) as mesh:
        result = await mesh.ask("Capital of France?", model="alpha")
    assert result.text == "Paris"
    assert {fetch.request_id for fetch in router.fetches} == {router.asks[0].request_id}


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_nobody_knows_of_is_asked_again_under_its_id(
    mesh_url: str, connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a router that dies before it has stored the request, and a second one that has never heard of it
    async def answer(router: Client, msg: Msg) -> None:
        await send(router, msg, a_result(Ask.model_validate_json(msg.data).request_id or ""))

    async def unknown(router: Client, msg: Msg) -> None:
        monkeypatch.setattr(reliable_request, "SLICE_S", 180.0)  # the second one is only slow, if at all
        await send_error(router, msg, UnknownRequest("no such request"))

    router = StubRouter(connection)
    await router.serve([nothing, answer], [unknown])
    # When the client asks, then it asks twice, and it is one request
    async with Choir(mesh_url) as mesh:
        result = await mesh.ask("Capital of France?", model="alpha")
    assert [ask.request_id for ask in router.asks] == [result.request_id] * 2


@pytest.mark.parametrize("error", [NotReady("this router stops"), BrokerUnavailable("no leader")])
async def test_a_passing_error_is_not_the_end(mesh_url: str, connection: Client, error: ChoirError) -> None:
    router = StubRouter(connection)
    await router.serve([an_error(error)], [an_error(error), the_result])
    async with Choir(mesh_url) as mesh:
        assert (await mesh.ask("Hi", model="alpha")).text == "Paris"
    assert len(router.asks) == 1


async def test_a_stream_goes_on_where_it_stopped(mesh_url: str, connection: Client) -> None:
    def chunk(request_id: str, index: int, text: str) -> TokenChunk:
        return TokenChunk(request_id=request_id, agent="alpha", index=index, text=text, sequence=10 + index)

    async def half(router: Client, msg: Msg) -> None:
        request_id = Ask.model_validate_json(msg.data).request_id or ""
        await send(router, msg, chunk(request_id, 0, "The "))
        await send(router, msg, chunk(request_id, 1, "city "))

    async def rest(router: Client, msg: Msg) -> None:
        request_id = Fetch.model_validate_json(msg.data).request_id
        for index, text in ((1, "city "), (2, "is Paris")):
            await send(router, msg, chunk(request_id, index, text))
        await send(router, msg, a_result(request_id, "The city is Paris"))

    # When the connection is lost for a moment after two pieces
    router = StubRouter(connection)
    await router.serve([half], [rest])
    replies: list[TokenChunk | Result] = []
    async with Choir(mesh_url) as mesh:
        async for reply in mesh.ask_stream("Where?", model="alpha"):
            replies.append(reply)
            if len(replies) == 2:
                mesh._replies.interrupted()
    *chunks, result = replies
    # Then it is resumed after the last sequence number, and a repeated chunk comes once
    assert [(fetch.stream, fetch.after_sequence) for fetch in router.fetches] == [(True, 11)]
    assert [reply.text for reply in chunks] == ["The ", "city ", "is Paris"]
    assert isinstance(result, Result)


async def test_a_text_that_another_agent_generates_anew_is_the_result_s_in_the_end(
    mesh_url: str, connection: Client
) -> None:
    async def two_attempts(router: Client, msg: Msg) -> None:
        request_id = Ask.model_validate_json(msg.data).request_id or ""
        for attempt, words in ((1, ("The ", "city ", "of ")), (900, ("The ", "town ", "is ", "Paris"))):
            for index, word in enumerate(words):
                piece: dict[str, Any] = {"agent": "alpha", "index": index, "text": word, "attempt": attempt}
                await send(router, msg, TokenChunk(request_id=request_id, **piece))
        await send(router, msg, answered(request_id, "The town is Paris"))

    await StubRouter(connection).serve([two_attempts], [nothing])
    async with Choir(mesh_url) as mesh:
        *chunks, result = [reply async for reply in mesh.ask_stream("Where?", model="alpha")]
    text, restarts = "", 0
    for chunk in chunks:
        assert isinstance(chunk, TokenChunk)
        text, restarts = (chunk.text if chunk.restarted else text + chunk.text), restarts + chunk.restarted
    assert isinstance(result, Result)
    assert (text, restarts) == (result.text, 1)


async def test_without_a_router_the_mesh_is_unreachable_when_the_time_of_the_request_is_over(
    mesh_url: str,
) -> None:
    async with Choir(mesh_url) as mesh:
        with pytest.raises(MeshUnreachable, match="no router"):
            await mesh.ask("Hi", model="alpha", timeout_s=1)


async def test_a_request_waits_for_a_router_as_long_as_it_said_and_tells_so_once(
    mesh_url: str, connection: Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a broker without a router, and clients with a minute's patience
    async def answer(router: Client, msg: Msg) -> None:
        await send(router, msg, a_result(Ask.model_validate_json(msg.data).request_id or ""))

    router = StubRouter(connection)
    async with Choir(mesh_url) as mesh:
        asked = [asyncio.create_task(mesh.ask("Hi", model="alpha", timeout_s=60)) for _ in range(3)]
        # When the first router comes later than a call that only looks would wait
        await asyncio.sleep(2)
        await eventually(lambda: caplog.records)
        said = [record.getMessage() for record in caplog.records]
        assert not any(task.done() for task in asked)
        await router.serve([answer], [nothing])
        # Then they are answered, and ask for no more time than they have left
        async with asyncio.timeout(180):
            assert [(await task).text for task in asked] == ["Paris"] * 3
    assert all(ask.timeout_s <= 58.1 for ask in router.asks)
    assert len(said) == 1
    assert said[0].startswith("no router answers yet; waiting until ")


async def test_a_request_that_takes_long_is_no_router_that_does_not_answer(
    mesh_url: str, connection: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its router says nothing of it until there is a result, and when asked, that there is none yet."""
    monkeypatch.setattr(reliable_request, "REPLY_MARGIN_S", 180.0)
    monkeypatch.setattr(silence, "NOTICE_AFTER_S", 0.0)

    async def silent(router: Client, msg: Msg) -> None:
        await router.publish(msg.reply, b"")  # as if the time were over in which there is no reply

    not_yet = an_error(NotReady("no result yet"))
    await StubRouter(connection).serve([silent], [not_yet, not_yet, not_yet, the_result])
    async with Choir(mesh_url) as mesh:
        assert (await mesh.ask("Hi", model="alpha", timeout_s=600)).text == "Paris"
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.usefixtures("impatient")
async def test_a_router_that_does_not_say_either_that_there_is_no_result_is_told_of(
    mesh_url: str, connection: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await StubRouter(connection).serve([nothing], [nothing, nothing, the_result])
    async with Choir(mesh_url) as mesh:
        assert (await mesh.ask("Hi", model="alpha", timeout_s=600)).text == "Paris"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("no router answers yet; waiting until ")


@pytest.mark.usefixtures("impatient")
async def test_a_fetch_waits_for_a_router_as_long_as_it_said(mesh_url: str, connection: Client) -> None:
    router = StubRouter(connection)
    async with Choir(mesh_url) as mesh:
        fetched = asyncio.create_task(mesh.fetch("r1", wait_s=60))
        await asyncio.sleep(2)
        await router.serve([nothing], [the_result])
        async with asyncio.timeout(180):
            assert (await fetched).text == "Paris"


async def test_a_call_that_only_looks_says_soon_that_nobody_answers(mesh_url: str) -> None:
    async with Choir(mesh_url) as mesh, asyncio.timeout(180):
        with pytest.raises(MeshUnreachable, match="no router does"):
            await mesh.models()


@pytest.mark.usefixtures("impatient")
async def test_a_router_that_never_answers_does_not_hold_the_client_for_ever(
    mesh_url: str, connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliable_request, "GRACE_S", 0.5)
    await StubRouter(connection).serve([nothing], [nothing])
    started_s = time.monotonic()
    async with Choir(mesh_url) as mesh:
        with pytest.raises(DeadlineExceeded, match="fetch it later"):
            await mesh.ask("Hi", model="alpha", timeout_s=0.5)
    assert time.monotonic() - started_s < 60


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


AGENT = {
    "name": "alpha",
    "backend": "instant",
    "models": [{"name": "alpha", "reply": "one two three four", "delay_ms": 2000}],
}


@pytest.mark.usefixtures("impatient")
async def test_a_killed_router_and_a_broker_that_restarts_cost_time_and_nothing_else(
    own_broker: Broker, spawn_service: SpawnService
) -> None:
    # Given a mesh that takes two seconds for an answer
    url = own_broker.url
    nc = await connect(url)
    router = spawn_service("router", url=url)
    agent = spawn_service("agent", url=url, agent=AGENT)
    await router.wait_ready(nc)
    await agent.wait_ready(nc)
    async with Choir(url) as mesh:

        async def text_of_stream() -> str:
            replies = [reply async for reply in mesh.ask_stream("Count", model="alpha")]
            return "".join(reply.text for reply in replies if isinstance(reply, TokenChunk))

        asked = [asyncio.create_task(mesh.ask("Count", model="alpha")) for _ in range(3)]
        streamed = asyncio.create_task(text_of_stream())
        await asyncio.sleep(0.7)
        # When the router is killed in the middle and another one starts
        router.kill()
        second = spawn_service("router", url=url)
        # Then everybody gets the one result, and the stream is whole
        async with asyncio.timeout(180):
            assert {(await task).text for task in asked} == {"one two three four"}
            assert await streamed == "one two three four"
            # And when the broker dies and comes back
            late = asyncio.create_task(mesh.ask("Count", model="alpha"))
            streamed = asyncio.create_task(text_of_stream())
            await asyncio.sleep(0.7)
            own_broker.kill()
            await own_broker.start()
            assert (await late).text == "one two three four"
            # Then a stream is whole too, though the broker has lost what was in its memory
            assert await streamed == "one two three four"
    await second.stop()
    await nc.close()


async def test_a_stream_that_ends_without_its_result_is_resumed_at_once(
    mesh_url: str, connection: Client
) -> None:
    async def only_the_end(router: Client, msg: Msg) -> None:
        await router.publish(msg.reply, b"")

    router = StubRouter(connection)
    await router.serve([only_the_end], [the_result])
    async with Choir(mesh_url) as mesh:
        replies = [reply async for reply in mesh.ask_stream("Where?", model="alpha")]
    assert [type(reply) for reply in replies] == [Result]
    assert len(router.fetches) == 1


async def test_who_is_inside_the_mesh_asks_in_the_name_of_any_tenant(
    mesh_url: str, connection: Client
) -> None:
    heard: list[str] = []

    async def answer(router: Client, msg: Msg) -> None:
        heard.append(msg.subject)
        await send(router, msg, a_result(Ask.model_validate_json(msg.data).request_id or ""))

    router = StubRouter(connection)
    await router.serve([answer], [the_result])
    async with Choir(mesh_url, tenant="alice") as mesh:
        await mesh.ask("Where?", model="alpha")
        await mesh.as_tenant("bob").result_of(build_ask("Where?", {"model": "alpha"}, stream=True))
    assert heard == [subjects.door("alice", subjects.ASK), subjects.door("bob", subjects.STREAM_ASK)]
