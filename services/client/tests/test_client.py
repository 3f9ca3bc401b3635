"""The Python client against a live mesh."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from infra.broker.broker import Broker
from infra.testing.choir_up import QUARTET
from infra.testing.mesh import eventually
from schemas.commands import ChatMessage
from schemas.errors import (
    Cancelled,
    ConfigurationError,
    InvalidRequest,
    MeshUnreachable,
    NotReady,
    PayloadTooLarge,
    RequestIdConflict,
    UnknownModel,
    UnknownRequest,
    UnknownStrategy,
)
from schemas.replies import Result, TokenChunk
from services.chassis.identity import new_id
from services.chassis.nats.connecting.attempt import Attempt
from services.client.client import Choir

NOBODY = "nats://127.0.0.1:9"


@pytest_asyncio.fixture
async def mesh(live_mesh: str) -> AsyncIterator[Choir]:
    async with Choir(live_mesh) as choir:
        yield choir


async def test_one_model_answers(mesh: Choir) -> None:
    result = await mesh.ask("What is the capital of France?", model="choir-one")
    assert result.text == "Paris"
    assert result.topology == "single"


async def test_what_a_model_cannot_do_is_refused_with_the_field_that_asks_for_it(mesh: Choir) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await mesh.score("choir-one", "The capital of France is Paris")
    assert refused.value.field == "sampling.prompt_logprobs"
    with pytest.raises(InvalidRequest) as refused:
        await mesh.embed("choir-one", "a giraffe")
    assert refused.value.field == "embed"


async def test_several_texts_are_streamed_apart_and_joined_they_are_the_answer_s(mesh: Choir) -> None:
    texts = ["", "", ""]
    async for reply in mesh.ask_stream("Tell me of Kenya.", model="choir-one", n=3, max_tokens=12):
        if isinstance(reply, TokenChunk):
            texts[reply.sample] += reply.text
        else:
            answer = reply.answers[0]
    assert texts == [answer.text, *(sample.text for sample in answer.samples)]


async def test_an_ensemble_decides_with_every_strategy(mesh: Choir) -> None:
    result = await mesh.ask("Capital of France?", models=QUARTET, strategies=["majority", "weighted"])
    assert result.text == "Paris"
    assert {answer.agent for answer in result.answers} == set(QUARTET)
    assert [decision.strategy for decision in result.decisions] == ["majority", "weighted"]
    assert result.decisions[0].answer == "paris"


async def test_a_conversation_and_sampler_options_travel_with_the_request(mesh: Choir) -> None:
    messages = (
        ChatMessage(role="user", content="Hello"),
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Where is the Louvre?"},
    )
    result = await mesh.ask(messages=messages, model="choir-four", max_tokens=2)
    assert result.text == "It is"
    assert result.answers[0].finish_reason == "length"


async def test_a_stream_is_chunks_and_then_the_result(mesh: Choir) -> None:
    replies = [reply async for reply in mesh.ask_stream("Capital of France?", model="choir-four")]
    *chunks, result = replies
    assert isinstance(result, Result)
    assert all(isinstance(chunk, TokenChunk) for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TokenChunk)) == result.text


async def test_a_submitted_request_is_fetched_later(mesh: Choir) -> None:
    request_id = await mesh.submit("Capital of France?", model="choir-two")
    result = await mesh.fetch(request_id, wait_s=180)
    assert (result.request_id, result.text) == (request_id, "Paris.")


async def test_fetching_too_early_says_not_ready_and_cancelling_ends_it(mesh: Choir) -> None:
    # Given a request that takes a minute
    request_id = await mesh.submit("Wait for it", model="choir-slow", timeout_s=120)
    with pytest.raises(NotReady):
        await mesh.fetch(request_id)
    # When it is cancelled, then that is its result, and cancelling again changes nothing
    assert await mesh.cancel(request_id)
    with pytest.raises(Cancelled):
        await mesh.fetch(request_id, wait_s=180)
    assert not await mesh.cancel(request_id)


async def test_feedback_says_who_was_right(mesh: Choir) -> None:
    result = await mesh.ask("Capital of France?", models=QUARTET[:3], strategies=["weighted"])
    counted = await mesh.feedback(result.request_id, "Paris")
    assert (set(counted.right), set(counted.wrong)) == ({"choir-one", "choir-two"}, {"choir-three"})


async def test_the_same_request_id_is_the_same_request(mesh: Choir) -> None:
    request_id = new_id()
    first = await mesh.ask("Capital of France?", model="choir-one", request_id=request_id)
    again = await mesh.ask("Capital of France?", model="choir-one", request_id=request_id)
    assert again == first
    with pytest.raises(RequestIdConflict):
        await mesh.ask("Something else", model="choir-one", request_id=request_id)


async def test_nodes_models_and_status(mesh: Choir) -> None:
    services = {node.service for node in await mesh.nodes()}
    assert services == {"router", "aggregator", "summarizer", "metrics", "agent"}
    names = {model.name for model in await mesh.models()}
    # A worker's model that another test has just taken away may be seen for a moment
    assert names >= {*QUARTET, "choir-slow", "choir-short", "choir-long"}
    status = await mesh.status()
    assert status.services == {"router": 1, "aggregator": 1, "summarizer": 1, "metrics": 1, "agent": 2}

    async def no_problems() -> bool:
        """What other tests have just taken away may be complained of for a moment too."""
        return not (await mesh.status()).problems

    await eventually(no_problems)


async def test_errors_of_the_mesh_are_typed_and_name_the_field(mesh: Choir) -> None:
    with pytest.raises(UnknownModel) as unknown_model:
        await mesh.ask("Hi", model="nobody")
    assert unknown_model.value.field == "model"
    assert "choir-one" in (unknown_model.value.known or ())
    with pytest.raises(UnknownStrategy) as unknown_strategy:
        await mesh.ask("Hi", models=QUARTET, strategies=["majority", "dice"])
    assert unknown_strategy.value.field == "strategies.1"
    with pytest.raises(UnknownRequest):
        await mesh.fetch(new_id())


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("  ", {}, "prompt"),
        (None, {}, "prompt"),
        ("Hi", {"temperature": -1.0}, "temperature"),
        ("Hi", {"max_tokens": 0}, "max_tokens"),
        ("Hi", {"timeout_s": float("nan")}, "timeout_s"),
        ("Hi", {"request_id": "a.b c"}, "request_id"),
        ("Hi", {"model": "a", "strategies": ["majority"]}, "model"),
        ("Hi", {"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_request_never_leaves_the_client(
    mesh: Choir, prompt: str | None, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidRequest) as invalid:
        await mesh.ask(prompt, **options)  # type: ignore[arg-type]
    assert invalid.value.field == field


async def test_a_payload_over_the_limit_is_refused_before_it_is_sent(mesh: Choir) -> None:
    with pytest.raises(PayloadTooLarge) as too_large:
        await mesh.ask("x" * 2_000_000, model="choir-one")
    assert too_large.value.field == "prompt"
    # And the connection still works
    assert (await mesh.ask("Hi", model="choir-one")).text == "Paris"


async def test_without_a_broker_the_mesh_is_unreachable_within_seconds() -> None:
    started_s = time.monotonic()
    with pytest.raises(MeshUnreachable, match="no broker answers") as unreachable:
        async with Choir(NOBODY):
            pytest.fail("connected to nobody")
    assert time.monotonic() - started_s < 60
    assert "choir up" in unreachable.value.message


async def test_a_broker_that_stands_still_for_a_moment_is_waited_for(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.client.connection.CONNECT_PATIENCE_S", 0.05)
    monkeypatch.setattr("services.client.connection.SILENCE_PATIENCE_S", 180.0)

    async def connected() -> bool:
        async with Choir(own_broker.url):
            return True

    own_broker.pause()
    connecting = asyncio.create_task(connected())
    done, _ = await asyncio.wait([connecting], timeout=0.5)
    own_broker.resume()
    assert not done and await connecting


async def test_a_reply_that_may_take_long_is_not_waited_for_when_the_broker_has_gone(
    own_broker: Broker,
) -> None:
    async with Choir(own_broker.url) as mesh:
        own_broker.kill()
        await eventually(lambda: not mesh._replies.connected)
        async with asyncio.timeout(180):
            with pytest.raises(MeshUnreachable, match="the broker has gone"):
                await mesh.sql("SELECT 1", timeout_s=600)


async def test_a_refusal_is_told_even_if_later_attempts_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a broker: whether a refusal can be read before a real one hangs up is luck."""
    monkeypatch.setattr("services.client.connection.CONNECT_PATIENCE_S", 180.0)
    attempts, failed = 0, Attempt.failed

    def tell(attempt: Attempt, error: Exception) -> None:
        if attempts > 1:
            attempt._told_at_s = 0.0  # its patience is over when another one has been cut off
        failed(attempt, error)

    monkeypatch.setattr(Attempt, "failed", tell)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.write(b'INFO {"auth_required":true,"max_payload":1048576}\r\n')
        await reader.readline()
        if attempts == 1:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
        else:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match="does not let anybody without user and password in"):
            async with Choir(f"nats://127.0.0.1:{port}"):
                pytest.fail("let in")
    assert attempts > 1


async def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.connection.CONNECT_PATIENCE_S", 0.2)
    with pytest.raises(MeshUnreachable) as unreachable:
        async with Choir("nats://me:secret@127.0.0.1:9"):
            pytest.fail("connected to nobody")
    assert "secret" not in unreachable.value.message


@pytest.mark.parametrize("url", ["", "127.0.0.1", "http://127.0.0.1:4222", "nats://", "nats://host:port"])
async def test_an_address_that_is_none_is_a_fault_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError) as fault:
        async with Choir(url):
            pytest.fail("connected to nobody")
    assert fault.value.field == "mesh.url"


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(MeshUnreachable, match="async with"):
        await Choir(NOBODY).models()
