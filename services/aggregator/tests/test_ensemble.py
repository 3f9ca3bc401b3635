"""Scatter and gather on a real broker, with members that say what the test wants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import (
    bodies,
    completions,
    enqueue,
    events,
    eventually,
    finished,
    gather,
    open_mesh,
    queue_is_empty,
)
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ContextExceeded, GenerationFailed, WorkerFailed
from schemas.events import DecisionMade
from schemas.replies import Answer
from services.aggregator import ensemble
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.strategies.ballot import Ballots
from services.aggregator.tests.ensemble import (
    Said,
    aggregating,
    answer,
    members,
    result_in_time,
    result_of,
    store_answer,
    why_not,
)
from services.chassis.work.delivery import Delivery, Retry
from services.chassis.work.tests.test_loop import CommandHandler, working

FOUR = ("alpha", "beta", "gamma", "delta")
BOTH = ("majority", "weighted")


async def test_four_members_are_asked_and_their_answers_decide(connection: Client) -> None:
    said = {"alpha": "Paris", "beta": "paris.", "gamma": "The capital is Paris", "delta": "London"}
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, gather("r1", FOUR, fingerprint="f1"))
        result = await result_of(mesh, "r1")
        await eventually(lambda: queue_is_empty(connection))
    assert (result.topology, result.fingerprint, result.error, result.missing) == ("ensemble", "f1", None, ())
    assert {answer.agent: answer.text for answer in result.answers} == said
    (decision,) = result.decisions
    assert decision.answer == "paris"
    assert decision.text == result.text
    assert decision.share >= 0.5
    for name, member in asked.items():
        (command,) = member.asked
        assert (command.agent, command.model, command.routing_slip) == (name, name, ("aggregator",))


async def test_answers_are_read_once_where_nothing_is_asked_of_their_texts(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read them takes longer the longer they are, and that is on the way of every ensemble."""
    looks: list[int] = []

    def counted(answers: tuple[Answer, ...], *options: Any) -> Ballots:
        looks.append(len(answers))
        return read_ballots(answers, *options)

    monkeypatch.setattr(ensemble, "read_ballots", counted)
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, "Paris")):
        await enqueue(mesh, gather("r1", FOUR, strategies=BOTH))
        assert len((await result_of(mesh, "r1")).decisions) == len(BOTH)
    assert looks == [len(FOUR)]


async def test_two_strategies_decide_from_one_fan_out(connection: Client) -> None:
    said = {name: letter for name, letter in zip(FOUR, "ABBC", strict=True)}
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, gather("r1", FOUR, strategies=BOTH, choices=("cat", "dog", "cow")))
        result = await result_of(mesh, "r1")

        async def told() -> list[DecisionMade] | None:
            made = [event for event in await events(connection) if isinstance(event, DecisionMade)]
            return made if len(made) == 2 else None

        decided = await eventually(told)
    assert tuple(decision.strategy for decision in result.decisions) == BOTH
    assert [decision.answer for decision in result.decisions] == ["B", "B"]
    assert [len(member.asked) for member in asked.values()] == [1, 1, 1, 1]
    assert {event.strategy for event in decided} == set(BOTH)
    assert {(event.agents, event.missing, event.share) for event in decided} == {(4, 0, 0.5)}


async def test_a_quorum_is_enough_and_the_rest_are_told_to_stop(connection: Client) -> None:
    said = {"alpha": "A", "beta": "A", "gamma": None, "delta": None}
    stopped = await connection.subscribe(subjects.cancel_signal("r1"))
    async with aggregating(connection) as mesh, members(connection, said):
        await enqueue(mesh, gather("r1", FOUR, quorum=2))
        result = await result_of(mesh, "r1")
        await stopped.next_msg(60)
    assert result.error is None
    assert result.missing == ("gamma", "delta")
    assert [answer.agent for answer in result.answers] == ["alpha", "beta"]


async def test_at_the_deadline_those_who_have_answered_decide(connection: Client) -> None:
    said = {"alpha": "A", "beta": None, "gamma": "A", "delta": None}
    async with aggregating(connection) as mesh, members(connection, said):
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: gather(request_id, FOUR, timeout_s=timeout_s),
            lambda result: len(result.answers) > 1,
            3.0,
        )
    assert (result.error, result.missing) == (None, ("beta", "delta"))


async def test_members_that_fail_do_not_vote_and_are_told_of(connection: Client) -> None:
    said: dict[str, Said] = {
        "alpha": "A",
        "beta": GenerationFailed("out of memory"),
        "gamma": "A",
        "delta": "B",
    }
    async with aggregating(connection) as mesh, members(connection, said):
        await enqueue(mesh, gather("r1", FOUR))
        result = await result_of(mesh, "r1")
    assert result.missing == ()
    (failed,) = [answer for answer in result.answers if answer.error is not None]
    assert (failed.agent, failed.error and failed.error.code) == ("beta", "generation_failed")
    assert [vote.agent for vote in result.decisions[0].votes] == ["alpha", "gamma", "delta"]


async def test_when_nobody_has_an_answer_the_result_says_why_of_each(connection: Client) -> None:
    said = {"alpha": GenerationFailed("out of memory"), "beta": ContextExceeded("too long"), "gamma": None}
    async with aggregating(connection) as mesh, members(connection, said):
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: gather(request_id, tuple(said), timeout_s=timeout_s),
            lambda result: "out of memory" in why_not(result) and "too long" in why_not(result),
            3.0,
        )
        await eventually(lambda: queue_is_empty(connection))
    assert result.error is not None and result.error.code == "no_answers"
    for reason in ("alpha: out of memory", "beta: too long", "gamma: not in time"):
        assert reason in result.error.message


async def test_of_a_member_that_failed_and_was_not_tried_again_the_failure_is_said(
    connection: Client,
) -> None:
    async def fail(_command: Generate, _delivery: Delivery) -> None:
        raise Retry(WorkerFailed("worker mac-1: it hung up"), delay_s=60)

    failing = open_mesh(connection, "agent")
    async with aggregating(connection) as mesh, working(failing, CommandHandler(fail), model="alpha"):
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: gather(request_id, ("alpha", "gamma"), timeout_s=timeout_s),
            lambda result: "hung up" in why_not(result),
            3.0,
        )
    assert result.error is not None and result.error.code == "no_answers"
    assert "(alpha: worker mac-1: it hung up; not in time; gamma: not in time)" in result.error.message


async def test_an_answer_counts_for_the_task_at_whose_place_it_is(connection: Client) -> None:
    """Given what beta may write, in the name of alpha: it takes neither the place of alpha's nor a vote."""
    mesh = open_mesh(connection)
    forged = answer("r1", "alpha", "B")
    await mesh.storage.store_once(subjects.answer("r1", 1, "beta"), forged.to_bytes())
    await enqueue(mesh, gather("r1", FOUR))
    async with members(connection, dict.fromkeys(FOUR, "A")), aggregating(connection):
        result = await result_of(mesh, "r1")
    assert {told.agent: told.text for told in result.answers if told.error is None} == dict.fromkeys(
        ("alpha", "gamma", "delta"), "A"
    )
    (refused,) = [told for told in result.answers if told.error is not None]
    assert refused.agent == "beta" and refused.error is not None and refused.error.code == "internal"


async def test_a_gather_that_was_begun_before_asks_only_those_who_are_missing(connection: Client) -> None:
    """What another aggregator left behind: two answers, and a command that nobody has acknowledged."""
    mesh = open_mesh(connection)
    await store_answer(mesh, "r1", "alpha", "A")
    await store_answer(mesh, "r1", "beta", "A")
    await enqueue(mesh, gather("r1", FOUR))
    said = dict.fromkeys(FOUR, "B")
    async with members(connection, said) as asked, aggregating(connection):
        result = await result_of(mesh, "r1")
    assert {answer.agent: answer.text for answer in result.answers} == dict(zip(FOUR, "AABB", strict=True))
    assert [len(asked[name].asked) for name in FOUR] == [0, 0, 1, 1]


async def test_members_that_were_asked_already_are_not_asked_twice(connection: Client) -> None:
    mesh = open_mesh(connection)
    question = gather("r1", FOUR)
    await enqueue(mesh, question.generate("alpha"))
    await enqueue(mesh, question)
    async with members(connection, dict.fromkeys(FOUR, "A")) as asked, aggregating(connection):
        result = await result_of(mesh, "r1")
    assert result.error is None
    assert [len(asked[name].asked) for name in FOUR] == [1, 1, 1, 1]


async def test_a_request_that_has_its_result_is_not_gathered_again(connection: Client) -> None:
    mesh = open_mesh(connection)
    result = finished("r1", "ensemble").to_bytes()
    await mesh.storage.store_once(subjects.result("r1"), result)
    await enqueue(mesh, gather("r1", FOUR))
    async with members(connection, dict.fromkeys(FOUR, "A")) as asked, aggregating(connection):
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.RESULTS_STREAM) == [result]
    assert [member.asked for member in asked.values()] == [[], [], [], []]
    assert [event.request_id for event in await completions(connection)] == ["r1"]


async def test_a_cancelled_ensemble_is_let_go(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, None)) as asked:
        await enqueue(mesh, gather("r1", FOUR, timeout_s=600))
        await eventually(lambda: all(member.asked for member in asked.values()))
        await connection.publish(subjects.cancel_signal("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.RESULTS_STREAM) == []  # whoever cancels stores the result


async def test_many_ensembles_at_once_have_one_result_each(connection: Client) -> None:
    said = dict(zip(FOUR, "ABBB", strict=True))
    async with aggregating(connection) as mesh, aggregating(connection), members(connection, said):
        await asyncio.gather(*(enqueue(mesh, gather(f"r{i}", FOUR)) for i in range(25)))
        results = await asyncio.gather(*(result_of(mesh, f"r{i}") for i in range(25)))
        await eventually(lambda: queue_is_empty(connection))
    assert {result.decisions[0].answer for result in results} == {"b"}
    assert all(len(result.answers) == 4 for result in results)
