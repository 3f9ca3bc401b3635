"""Answers are collected as they are stored, and found where they passed unheard."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from schemas.errors import GenerationFailed
from schemas.replies import Answer
from services.aggregator.collector import Collector
from services.aggregator.tests.ensemble import store_answer
from services.chassis.tests.mesh import eventually, generate, open_mesh

ALL = ("alpha", "beta", "gamma")
PLACES = [(1, agent) for agent in ALL]
NO_POLL = 3600.0


def soon() -> float:
    return time.time() + 30


async def test_it_returns_when_all_members_have_answered(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        waiting = asyncio.create_task(collector.wait(PLACES, 3, soon(), NO_POLL))
        for member in ALL:
            assert not waiting.done()
            await store_answer(mesh, "r1", member, member.upper())
        await waiting
    assert {name: found.text for name, found in collector.of_round(1).items()} == {m: m.upper() for m in ALL}


async def test_a_quorum_is_of_answers_that_can_be_used(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        waiting = asyncio.create_task(collector.wait(PLACES, 1, soon(), NO_POLL))
        await store_answer(mesh, "r1", "alpha", GenerationFailed("no"))
        await eventually(lambda: len(collector.answers) == 1)
        assert not waiting.done()
        await store_answer(mesh, "r1", "beta", "yes")
        await waiting
    assert set(collector.of_round(1)) == {"alpha", "beta"}


async def test_when_all_have_failed_nobody_is_waited_for(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        for member in ALL:
            await store_answer(mesh, "r1", member, GenerationFailed("no"))
        await collector.wait(PLACES, 2, soon(), 0.05)
    assert len(collector.answers) == 3


async def test_at_the_deadline_it_returns_with_what_there_is(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        await store_answer(mesh, "r1", "beta", "yes")
        await collector.wait(PLACES, 3, time.time() + 0.3, 0.05)
    assert set(collector.of_round(1)) == {"beta"}


async def test_answers_that_passed_unheard_are_read_from_the_stream(connection: Client) -> None:
    mesh = open_mesh(connection)
    for member in ALL:
        await store_answer(mesh, "r1", member, "yes")
    async with Collector.open(mesh.storage, "r1") as collector:
        await collector.wait(PLACES, 3, soon(), 0.05)
    assert set(collector.of_round(1)) == set(ALL)


async def test_only_members_that_are_missing_are_read(connection: Client) -> None:
    mesh = open_mesh(connection)
    await store_answer(mesh, "r1", "alpha", "yes")
    async with Collector.open(mesh.storage, "r1") as collector:
        await collector.read([(1, "beta"), (1, "gamma")])
        assert collector.answers == {}
        await collector.read(PLACES)
        assert set(collector.of_round(1)) == {"alpha"}


async def test_each_round_has_its_own_answers_and_other_requests_have_theirs(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        await store_answer(mesh, "r2", "alpha", "other request")
        await store_answer(mesh, "r1", "alpha", "second round", 2)
        await store_answer(mesh, "r1", "beta", "first round")
        await eventually(lambda: len(collector.answers) == 2)
        await collector.read(PLACES)
    assert {agent: found.text for agent, found in collector.of_round(1).items()} == {"beta": "first round"}
    assert {agent: found.text for agent, found in collector.of_round(2).items()} == {"alpha": "second round"}


async def test_a_late_twin_of_an_answer_is_not_heard(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1") as collector:
        await store_answer(mesh, "r1", "alpha", "first")
        await store_answer(mesh, "r1", "alpha", "second")
        await store_answer(mesh, "r1", "beta", "last")
        await eventually(lambda: (1, "beta") in collector.answers)
    assert collector.answers[1, "alpha"].text == "first"


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_comes_together_with_an_answer_is_not_lost(
    connection: Client, steps: int
) -> None:
    """However many turns of the event loop lie between the two, the collector does not wait on."""
    mesh = open_mesh(connection)
    answer = Answer.failed(generate("r1"), GenerationFailed("no"), "agent-1")
    async with Collector.open(mesh.storage, "r1") as collector:
        waiting = asyncio.create_task(collector.wait(PLACES, 3, soon(), NO_POLL))
        await connection.flush()
        collector._take(answer.to_bytes())
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait([waiting], timeout=5)
        waiting.cancel()
    assert done and waiting.cancelled()
