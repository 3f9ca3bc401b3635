"""Answers are collected as they are stored, and found where they passed unheard."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client
from pydantic import ValidationError

from infra.testing.mesh import eventually, generate, open_mesh
from schemas import subjects
from schemas.errors import ChoirError, GenerationFailed
from schemas.replies import Answer
from services.chassis.context import ServiceContext
from services.tasks.stored_replies import StoredReplies, answer_subject, stored_answers, usable

ALL = ("alpha", "beta", "gamma")
NO_POLL = 3600.0


def places(*agents: str) -> list[str]:
    """Where the answers of agents to the question will be."""
    return [subjects.answer("r1", 1, agent) for agent in agents]


def of_round(answers: StoredReplies[Answer], round_: int) -> dict[str, Answer]:
    """The answers of one round that are there, by agent."""
    found = ((agent, answers.get(subjects.answer("r1", round_, agent))) for agent in ALL)
    return {agent: answer for agent, answer in found if answer is not None}


async def store_answer(
    mesh: ServiceContext, request_id: str, agent: str, said: str | ChoirError, round_: int = 1
) -> None:
    """Does what an agent does at the end of a task."""
    failed = said if isinstance(said, ChoirError) else GenerationFailed("")
    task = generate(request_id).model_copy(update={"agent": agent, "round": round_})
    answer = Answer.failed(task, failed, "agent-1")
    if isinstance(said, str):
        answer = answer.model_copy(update={"text": said, "finish_reason": "stop", "error": None})
    await mesh.storage.store_once(answer_subject(task), answer.to_bytes())


def soon() -> float:
    return time.time() + 180


async def test_it_returns_when_all_members_have_answered(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        waiting = asyncio.create_task(answers.wait(places(*ALL), soon()))
        for member in ALL:
            assert not waiting.done()
            await store_answer(mesh, "r1", member, member.upper())
        await waiting
    assert {name: found.text for name, found in of_round(answers, 1).items()} == {m: m.upper() for m in ALL}


async def test_a_quorum_is_of_answers_that_can_be_used(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        waiting = asyncio.create_task(answers.wait(places(*ALL), soon(), usable(1)))
        await store_answer(mesh, "r1", "alpha", GenerationFailed("no"))
        await eventually(lambda: len(of_round(answers, 1)) == 1)
        assert not waiting.done()
        await store_answer(mesh, "r1", "beta", "yes")
        await waiting
    assert set(of_round(answers, 1)) == {"alpha", "beta"}


async def test_when_all_have_failed_nobody_is_waited_for(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", 0.05) as answers:
        for member in ALL:
            await store_answer(mesh, "r1", member, GenerationFailed("no"))
        await answers.wait(places(*ALL), soon(), usable(2))
    assert len(of_round(answers, 1)) == 3


async def test_at_the_deadline_it_returns_with_what_there_is(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", 0.05) as answers:
        await store_answer(mesh, "r1", "beta", "yes")
        await answers.wait(places("beta"), soon())
        await answers.wait(places(*ALL), time.time() + 0.3)
    assert set(of_round(answers, 1)) == {"beta"}


async def test_answers_that_passed_unheard_are_read_from_the_stream(connection: Client) -> None:
    mesh = open_mesh(connection)
    for member in ALL:
        await store_answer(mesh, "r1", member, "yes")
    async with stored_answers(mesh.storage, "r1", 0.05) as answers:
        await answers.wait(places(*ALL), soon())
    assert set(of_round(answers, 1)) == set(ALL)


async def test_only_members_that_are_missing_are_read(connection: Client) -> None:
    mesh = open_mesh(connection)
    await store_answer(mesh, "r1", "alpha", "yes")
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        await answers.look_up(places("beta", "gamma"))
        assert of_round(answers, 1) == {}
        await answers.look_up(places(*ALL))
        assert set(of_round(answers, 1)) == {"alpha"}


async def test_each_round_has_its_own_answers_and_other_requests_have_theirs(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        await store_answer(mesh, "r2", "alpha", "other request")
        await store_answer(mesh, "r1", "alpha", "second round", 2)
        await store_answer(mesh, "r1", "beta", "first round")
        await eventually(lambda: of_round(answers, 1) and of_round(answers, 2))
        await answers.look_up(places(*ALL))
    assert {agent: found.text for agent, found in of_round(answers, 1).items()} == {"beta": "first round"}
    assert {agent: found.text for agent, found in of_round(answers, 2).items()} == {"alpha": "second round"}


async def test_a_late_twin_of_an_answer_is_not_heard(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        await store_answer(mesh, "r1", "alpha", "first")
        await store_answer(mesh, "r1", "alpha", "second")
        await store_answer(mesh, "r1", "beta", "last")
        await eventually(lambda: "beta" in of_round(answers, 1))
    assert of_round(answers, 1)["alpha"].text == "first"


async def test_many_wait_side_by_side_each_for_its_own(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        alpha, beta = (asyncio.create_task(answers.wait(places(name), soon())) for name in ("alpha", "beta"))
        await store_answer(mesh, "r1", "alpha", "yes")
        await alpha
        assert not beta.done()
        await store_answer(mesh, "r1", "beta", "yes")
        await beta


async def test_what_cannot_be_read_is_the_error_of_whoever_waits_for_it(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        waiting = asyncio.create_task(answers.wait(places("alpha"), soon()))
        await mesh.storage.store_once(subjects.answer("r1", 1, "alpha"), b"{}")
        with pytest.raises(ValidationError):
            await waiting


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_comes_together_with_an_answer_is_not_lost(
    connection: Client, steps: int
) -> None:
    """However many turns of the event loop lie between the two, nobody waits on."""
    mesh = open_mesh(connection)
    answer = Answer.failed(generate("r1"), GenerationFailed("no"), "agent-1")
    async with stored_answers(mesh.storage, "r1", NO_POLL) as answers:
        waiting = asyncio.create_task(answers.wait(places(*ALL), soon()))
        await connection.flush()
        answers.take(answer_subject(generate("r1")), answer.to_bytes())
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait([waiting], timeout=180)
        waiting.cancel()
    assert done and waiting.cancelled()
