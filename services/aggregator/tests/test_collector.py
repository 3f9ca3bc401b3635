"""Answers are collected as they are stored, and found where they passed unheard."""

from __future__ import annotations

import asyncio
import time

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import GenerationFailed
from services.aggregator.collector import Collector
from services.aggregator.tests.ensemble import answer, store_answer
from services.chassis.tests.mesh import eventually, open_mesh

ALL = ("alpha", "beta", "gamma")
NO_POLL = 3600.0


def soon() -> float:
    return time.time() + 30


async def test_it_returns_when_all_members_have_answered(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        waiting = asyncio.create_task(collector.wait(ALL, 3, soon(), NO_POLL))
        for member in ALL:
            assert not waiting.done()
            await store_answer(mesh, "r1", member, member.upper())
        await waiting
    assert {name: found.text for name, found in collector.answers.items()} == {m: m.upper() for m in ALL}


async def test_a_quorum_is_of_answers_that_can_be_used(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        waiting = asyncio.create_task(collector.wait(ALL, 1, soon(), NO_POLL))
        await store_answer(mesh, "r1", "alpha", GenerationFailed("no"))
        await eventually(lambda: len(collector.answers) == 1)
        assert not waiting.done()
        await store_answer(mesh, "r1", "beta", "yes")
        await waiting
    assert collector.usable() == 1
    assert set(collector.answers) == {"alpha", "beta"}


async def test_when_all_have_failed_nobody_is_waited_for(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        for member in ALL:
            await store_answer(mesh, "r1", member, GenerationFailed("no"))
        await collector.wait(ALL, 2, soon(), 0.05)
    assert (len(collector.answers), collector.usable()) == (3, 0)


async def test_at_the_deadline_it_returns_with_what_there_is(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        await store_answer(mesh, "r1", "beta", "yes")
        await collector.wait(ALL, 3, time.time() + 0.3, 0.05)
    assert set(collector.answers) == {"beta"}


async def test_answers_that_passed_unheard_are_read_from_the_stream(connection: Client) -> None:
    mesh = open_mesh(connection)
    for member in ALL:
        await store_answer(mesh, "r1", member, "yes")
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        await collector.wait(ALL, 3, soon(), 0.05)
    assert set(collector.answers) == set(ALL)


async def test_only_members_that_are_missing_are_read(connection: Client) -> None:
    mesh = open_mesh(connection)
    await store_answer(mesh, "r1", "alpha", "yes")
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        await collector.read(("beta", "gamma"))
        assert collector.answers == {}
        await collector.read(ALL)
        assert set(collector.answers) == {"alpha"}


async def test_answers_of_other_requests_and_rounds_are_not_its_own(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        await store_answer(mesh, "r2", "alpha", "other request")
        later = answer("r1", "alpha", "other round").model_copy(update={"round": 2})
        await mesh.storage.store_once(subjects.answer("r1", 2, "alpha"), later.to_bytes())
        await store_answer(mesh, "r1", "beta", "mine")
        await eventually(lambda: collector.answers)
        await collector.read(ALL)
    assert set(collector.answers) == {"beta"}


async def test_a_late_twin_of_an_answer_is_not_heard(connection: Client) -> None:
    mesh = open_mesh(connection)
    async with Collector.open(mesh.storage, "r1", 1) as collector:
        await store_answer(mesh, "r1", "alpha", "first")
        await store_answer(mesh, "r1", "alpha", "second")
        await store_answer(mesh, "r1", "beta", "last")
        await eventually(lambda: "beta" in collector.answers)
    assert collector.answers["alpha"].text == "first"
