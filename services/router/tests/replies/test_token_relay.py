"""Token streams: every piece once, in order, live or from where a client left off."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import Overloaded
from schemas.message import Message
from schemas.replies import Result, TokenChunk
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.reading import Stored
from services.chassis.nats.streams import Storage
from services.router import token_relay
from services.router.tests.front import Front, Stream
from services.router.token_relay import TokenRelay


async def test_text_comes_while_it_is_generated_and_then_the_result(front: Front) -> None:
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("r1")
    for index, text in enumerate(("the ", "giraffe")):
        await front.say("r1", index, text)
        chunk = await stream.chunk()
        assert (chunk.index, chunk.text, chunk.agent, chunk.done) == (index, text, "alpha", False)
        assert chunk.sequence == index + 1
    await front.say("r1", 2, "", done=True)
    await front.finish("r1", "the giraffe", chunks=3)
    assert (await stream.chunk()).done
    assert (await stream.result()).text == "the giraffe"


async def test_a_result_that_overtakes_the_last_pieces_waits_for_them(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_relay, "LAST_CHUNK_PATIENCE_S", 180.0)
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.finish("r1", chunks=2)
    await front.say("r1", 0, "the giraffe")
    await front.say("r1", 1, "", done=True)
    assert [(await stream.chunk()).index for _ in range(2)] == [0, 1]
    assert (await stream.result()).text == "the giraffe"


async def test_pieces_that_were_not_heard_in_time_are_read_from_the_stream_before_the_result(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_relay, "LAST_CHUNK_PATIENCE_S", 0.0)
    monkeypatch.setattr(TokenRelay, "_on_chunk", dropped)
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("r1")
    await front.say("r1", 0, "the giraffe")
    await front.say("r1", 1, "", done=True)
    await front.finish("r1", chunks=2)
    assert [(await stream.chunk()).index for _ in range(2)] == [0, 1]
    assert (await stream.result()).text == "the giraffe"


async def dropped(_relay: TokenRelay, _msg: Msg) -> None:
    """This process was too slow to take it."""


async def test_a_client_that_comes_back_gets_what_it_has_not_seen(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="r1", stream=True)
    for index in range(4):
        await front.say("r1", index, str(index))
    await front.client.flush()
    stream = await Stream(front).open(
        subjects.STREAM_FETCH, request_id="r1", stream=True, after_sequence=2, wait_s=30
    )
    resumed = [await stream.chunk() for _ in range(2)]
    assert [(chunk.sequence, chunk.text) for chunk in resumed] == [(3, "2"), (4, "3")]
    await front.say("r1", 4, "4", done=True)  # and from here on it is live
    assert (await stream.chunk()).sequence == 5
    await front.finish("r1", chunks=5)
    assert (await stream.result()).request_id == "r1"


async def test_a_client_that_comes_back_after_the_end_gets_the_rest_and_the_result(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="r1", stream=True)
    for index in range(3):
        await front.say("r1", index, str(index), done=index == 2)
    await front.finish("r1", chunks=3)
    stream = await Stream(front).open(subjects.STREAM_FETCH, request_id="r1", stream=True)
    assert [(await stream.chunk()).text for _ in range(3)] == ["0", "1", "2"]
    assert (await stream.result()).request_id == "r1"


async def test_what_several_agents_said_comes_in_the_order_of_the_stream_which_is_not_searched(
    front: Front,
) -> None:
    """A search for a subject with wildcards reads every message of a stream in memory, of all requests."""
    asked: list[dict[str, Any]] = []

    async def ask(msg: Msg) -> None:
        asked.append(json.loads(msg.data))

    await front.client.subscribe(subjects.direct_get(subjects.TOKENS_STREAM), cb=ask)
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="r1", stream=True)
    said = [("alpha", 0), ("beta", 0), ("beta", 1), ("alpha", 1), ("beta", 2), ("alpha", 2)]
    for agent, index in said:
        await front.say("r1", index, f"{agent} {index}", agent=agent)
    await front.client.flush()
    stream = await Stream(front).open(
        subjects.STREAM_FETCH, request_id="r1", stream=True, after_sequence=1, wait_s=30
    )
    resumed = [await stream.chunk() for _ in said[1:]]
    assert [(chunk.agent, chunk.index) for chunk in resumed] == said[1:]
    searched = [query["next_by_subj"] for query in asked if "next_by_subj" in query]
    assert searched and not any("*" in subject or ">" in subject for subject in searched)


async def test_the_pieces_of_a_task_that_was_begun_again_are_not_repeated(front: Front) -> None:
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("r1")
    for index in (0, 1):
        await front.say("r1", index, str(index))
    for index in (0, 1, 2):  # another agent does the same task
        await front.say("r1", index, str(index), done=index == 2)
    await front.finish("r1", chunks=3)
    assert [(await stream.chunk()).text for _ in range(3)] == ["0", "1", "2"]
    assert (await stream.result()).request_id == "r1"


async def test_of_two_attempts_the_newer_one_is_sent_from_its_beginning(front: Front) -> None:
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("r1")
    for index in range(3):
        await front.say("r1", index, f"first {index}")
    await front.say("r1", 0, "second 0", attempt=2)
    await front.say("r1", 3, "first 3")  # the first agent was only paused
    await front.say("r1", 1, "second 1", attempt=2, done=True)
    await front.finish("r1", chunks=2)
    got = [await stream.chunk() for _ in range(5)]
    assert [chunk.text for chunk in got] == ["first 0", "first 1", "first 2", "second 0", "second 1"]
    assert [chunk.attempt for chunk in got] == [1, 1, 1, 2, 2]
    assert (await stream.result()).request_id == "r1"


async def test_a_client_comes_back_although_the_numbers_of_the_stream_began_anew(front: Front) -> None:
    # Given a client that has come to number 5,000, and a broker that has lost its memory since
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="r1", stream=True)
    for index in range(3):
        await front.say("r1", index, str(index))
    await front.client.flush()
    # When it comes back, then it gets what there is
    stream = await Stream(front).open(
        subjects.STREAM_FETCH, request_id="r1", stream=True, after_sequence=5_000, wait_s=30
    )
    assert [(await stream.chunk()).text for _ in range(3)] == ["0", "1", "2"]
    await front.say("r1", 3, "3", done=True)
    assert (await stream.chunk()).text == "3"
    await front.finish("r1", chunks=4)
    assert (await stream.result()).request_id == "r1"


async def test_a_number_that_is_now_another_request_s_means_nothing(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="r1", stream=True)
    await front.say("r1", 0, "0")
    await front.say("r2", 0, "not for you")
    await front.client.flush()
    stream = await Stream(front).open(subjects.STREAM_FETCH, request_id="r1", stream=True, after_sequence=2)
    assert (await stream.chunk()).text == "0"


async def test_pieces_of_other_requests_are_not_for_this_client(front: Front) -> None:
    stream = await Stream(front).open(
        subjects.STREAM_ASK, prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("r1")
    await front.say("r2", 0, "not for you")
    await front.say("r1", 0, "for you", done=True)
    assert (await stream.chunk()).text == "for you"
    await front.finish("r1", chunks=1)
    assert (await stream.result()).request_id == "r1"


@pytest.mark.parametrize("subject", [subjects.ASK, subjects.FETCH])
async def test_text_piece_by_piece_is_refused_where_only_one_reply_passes(front: Front, subject: str) -> None:
    body = {"request_id": "r1"} if subject == subjects.FETCH else {"prompt": "hi", "model": "alpha"}
    error = await front.refused(subject, **body, stream=True)
    assert (error.code, error.field) == ("invalid_request", "stream")
    assert "choir.stream." in error.message


class EmptyStorage:
    async def last_of_each(self, *_: Any) -> list[Stored]:
        return []


class SlowCaller:
    """Takes its time over the first piece, and then lets the test go on."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def send(self, reply: Message, _kind: str | None = None) -> None:
        self.begun.set()
        await self.go_on.wait()
        self.got.append(cast(TokenChunk, reply).text)


def live(index: int) -> Msg:
    chunk = TokenChunk(request_id="r1", agent="alpha", index=index, text=str(index))
    headers = {subjects.SEQUENCE_HEADER: str(index + 1)}
    client: Any = None
    return Msg(client, subjects.token("r1", "alpha"), "", chunk.to_bytes(), headers)


async def test_a_piece_that_comes_while_the_held_ones_are_sent_comes_after_them() -> None:
    caller = SlowCaller()
    relay = TokenRelay(cast(Storage, EmptyStorage()), "r1", cast(Caller, caller))
    await relay._on_chunk(live(0))
    await relay._on_chunk(live(1))
    replay = asyncio.create_task(relay.replay())
    await caller.begun.wait()
    late = asyncio.create_task(relay._on_chunk(live(2)))
    await asyncio.sleep(0)
    caller.go_on.set()
    await asyncio.gather(replay, late)
    assert caller.got == ["0", "1", "2"]


async def test_a_result_without_pieces_is_not_waited_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_relay, "LAST_CHUNK_PATIENCE_S", 3600.0)
    relay = TokenRelay(cast(Storage, EmptyStorage()), "r1", cast(Caller, SlowCaller()))
    result = Result.unreadable("r1", Overloaded("full"), 1.0)
    await asyncio.wait_for(relay.finish(result), 180)
