"""Clients that take all places: who would look or cancel is answered all the same."""

from __future__ import annotations

import asyncio
import json

import nats
import pytest
from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.commands import Tokenize
from schemas.errors import ErrorBody
from schemas.replies import Result, Tokenized
from schemas.subjects import ASK, FETCH, STREAM_ASK, TOKENIZE, door
from services.router.endpoints import tokenizing
from services.router.endpoints.tokenizing import AT_ONCE
from services.router.queued import queued_command
from services.router.tests.front import Stream, open_front

TOKENIZED = Tokenized(model="alpha", tokens=(1, 2), context_tokens=8).to_bytes()


async def test_when_all_places_are_taken_requests_are_cancelled_and_the_mesh_is_looked_at(
    connection: Client, mesh_url: str
) -> None:
    async with open_front(connection, mesh_url, max_waiting=3) as front:
        waiting = [
            await Stream(front).open(subjects.ASK, prompt="hi", model="alpha", request_id=f"r{number}")
            for number in (1, 2)
        ]
        for number in (1, 2):
            await front.command(f"r{number}")

        # Given that nobody else may wait
        refused = await front.refused(subjects.ASK, prompt="hi", model="alpha")
        assert refused.code == "overloaded"

        # Then what does not wait is answered, and makes room
        for subject in (subjects.STATUS, subjects.NODES, subjects.MODELS):
            assert not (await front.request(subject)).headers
        assert not (await front.request(subjects.WORKER, action="list")).headers
        assert not (await front.request(subjects.CANCEL, request_id="r1")).headers
        error: ErrorBody | None = (await waiting[0].result()).error
        assert error is not None and error.code == "cancelled"
        again = await Stream(front).open(subjects.ASK, prompt="hi", model="alpha", request_id="r3")
        await front.command("r3")
        await front.finish("r3")
        finished: Result = await again.result()
        assert finished.text == "the giraffe"


async def test_a_tenant_who_waits_everywhere_leaves_room_for_another(
    connection: Client, mesh_url: str
) -> None:
    async with open_front(connection, mesh_url, max_waiting=16) as front:
        # Given a tenant that waits for one and the same result as often as it is let
        asking = Stream(front)
        await asking.open(door("alice", subjects.ASK), prompt="hi", model="alpha", request_id="r1")
        await front.command("alice=r1")
        fetching = [
            await Stream(front).open(door("alice", FETCH), request_id="r1", wait_s=60) for _ in range(20)
        ]
        refused = await front.refused(door("alice", FETCH), request_id="r1", wait_s=60)
        assert refused.code == "overloaded"
        # When another one asks, then it is let in, and has its answer
        other = await Stream(front).open(
            door("bob", subjects.ASK), prompt="hi", model="alpha", request_id="r2"
        )
        await front.command("bob=r2")
        await front.finish("bob=r2")
        assert (await other.result()).text == "the giraffe"
        # And the first one loses nothing of what it waits for
        await front.finish("alice=r1")
        assert (await asking.result()).text == "the giraffe"
        answered = [await one.result() for one in fetching[:8]]
        assert {result.text for result in answered} == {"the giraffe"}


async def test_places_of_clients_who_have_vanished_are_free_again(connection: Client, mesh_url: str) -> None:
    async with open_front(connection, mesh_url, max_waiting=16, undisturbed_s=0.0) as front:
        # Given many who wait, and then vanish, and one of the same tenant who stays
        staying = Stream(front)
        await staying.open(
            door("alice", STREAM_ASK), prompt="hi", model="alpha", request_id="r0", stream=True
        )
        await front.command("alice=r0")
        vanishing = await nats.connect(mesh_url)
        for number in range(1, 20):
            asked = {"prompt": "hi", "model": "alpha", "request_id": f"r{number}"}
            subject, more = (STREAM_ASK, {"stream": True}) if number % 2 else (ASK, {})
            await vanishing.publish(
                door("alice", subject), json.dumps(asked | more).encode(), reply="_INBOX.gone"
            )
        await vanishing.close()
        await front.command("alice=r1")

        # When the tenant comes again, then it is let in after a moment, though nothing has ended
        async def let_in() -> Stream | None:
            stream = await Stream(front).open(
                door("alice", ASK), prompt="hi", model="alpha", request_id="later"
            )
            return stream if await queued_command(front.mesh.storage, "alice=later") else None

        await eventually(let_in)
        # And who stayed is told to come again, and has its result then, as those who went would have
        told = await staying.error()
        assert (told.code, told.request_id, told.retry_after_s) == ("not_ready", "r0", 1.0)
        for request_id in ("r0", "r1", "later"):
            await front.finish(f"alice={request_id}")

            async def fetched(request_id: str = request_id) -> bool:
                reply = await front.request(door("alice", FETCH), request_id=request_id)
                return b"the giraffe" in reply.data  # or there is no place yet

            await eventually(fetched)
        for number in range(1, 20):  # so that nobody waits when the router stops
            if await queued_command(front.mesh.storage, f"alice=r{number}"):
                await front.finish(f"alice=r{number}")


async def test_a_tenant_who_has_ever_more_tokenized_keeps_nobody_else_waiting(
    connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "TOKENIZE_TIMEOUT_S", DEADLINE_S)
    async with open_front(connection, mesh_url) as front:
        # Given an agent that has not answered yet
        questions = await connection.subscribe(subjects.tokenizer("alpha"))
        await connection.flush()
        many = [await Stream(front).open(door("alice", TOKENIZE), model="alpha", text="a") for _ in range(20)]
        held = [await questions.next_msg(DEADLINE_S) for _ in range(AT_ONCE)]
        # When another one asks for the tokens of a text
        other = asyncio.create_task(front.request(door("bob", TOKENIZE), model="alpha", text="b"))
        asked = await questions.next_msg(DEADLINE_S)
        # Then that is the next question that the agent has
        assert Tokenize.model_validate_json(asked.data).text == "b"
        await asked.respond(TOKENIZED)
        assert (await other).data == TOKENIZED
        # And the others come to their turn, all of them
        for question in held:
            await question.respond(TOKENIZED)
        for _ in range(len(many) - AT_ONCE):
            await (await questions.next_msg(DEADLINE_S)).respond(TOKENIZED)
