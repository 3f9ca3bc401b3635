"""Cascades on a real broker: who is asked, what is decided, and how another aggregator goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import enqueue, events, eventually, gather, open_mesh, queue_is_empty
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.commands import Generate
from schemas.ensembles.effort import Cascade
from schemas.errors import GenerationFailed
from schemas.events import GatherCompleted
from schemas.replies import Result
from services.aggregator.tests.ensemble import (
    Member,
    Said,
    aggregating,
    members,
    result_in_time,
    result_of,
    store_answer,
)
from services.aggregator.tests.test_rounds import deliver_again_soon

FOUR = ("alpha", "beta", "gamma", "delta")
CHOICES = ("cat", "dog", "cow", "hen")
A_FIRST = "j"
"""By these lots A wins a tie with B, so two of three votes for B are not enough."""


def asked_counts(asked: dict[str, Member]) -> list[int]:
    return [len(asked[name].asked) for name in FOUR]


def cascade_of(result: Result) -> Cascade:
    assert result.cascade is not None
    return result.cascade


async def test_the_fewest_who_can_decide_are_asked_and_what_was_spared_is_told(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, "B")) as asked:
        await enqueue(mesh, gather("r1", FOUR, choices=CHOICES, effort="exact", lots=A_FIRST))
        result = await result_of(mesh, "r1")
        await eventually(lambda: queue_is_empty(connection))

        async def told() -> list[GatherCompleted]:
            return [event for event in await events(connection) if isinstance(event, GatherCompleted)]

        (event,) = await eventually(told)
    cascade = cascade_of(result)
    assert (result.decisions[0].answer, result.missing, cascade.ended, cascade.bound) == (
        "B",
        (),
        "settled",
        0,
    )
    assert cascade.waves == (("alpha", "beta", "gamma"),)
    assert (cascade.spared, cascade.saved_calls) == (("delta",), 1)
    assert asked_counts(asked) == [1, 1, 1, 0]
    assert (event.effort, event.waves, event.saved_calls, event.bound) == ("exact", 1, 1, 0.0)


async def test_exact_decides_as_all_do_whoever_says_what(connection: Client) -> None:
    """The same questions with and without an effort, ties by the same lot, and nobody is asked twice."""
    texts = ("AAAA", "ABAB", "AABB", "ABCD", "ABBB", "ABCC", "DABB", "A?B?")
    said = {
        name: (lambda command, place=place: _said(texts, command, place)) for place, name in enumerate(FOUR)
    }
    async with aggregating(connection) as mesh, members(connection, dict(said)) as asked:
        for number in range(len(texts)):
            question: dict[str, Any] = {
                "choices": CHOICES,
                "lots": f"f{number}",
                "strategies": ("majority", "weighted"),
            }
            await enqueue(mesh, gather(f"full-{number}", FOUR, **question))
            await enqueue(mesh, gather(f"less-{number}", FOUR, effort="exact", **question))
        for number in range(len(texts)):
            full, less = await result_of(mesh, f"full-{number}"), await result_of(mesh, f"less-{number}")
            assert [d.answer for d in full.decisions] == [d.answer for d in less.decisions], texts[number]
            assert full.cascade is None and less.cascade is not None
    for member in asked.values():
        assert len({command.task_id for command in member.asked}) == len(member.asked)


def _said(texts: Sequence[str], command: Generate, place: int) -> str | GenerationFailed:
    letter = texts[int(command.request_id.rsplit("-", 1)[1])][place]
    return GenerationFailed("out of memory") if letter == "?" else letter


async def test_a_member_that_fails_or_is_silent_is_made_up_for_by_the_next(connection: Client) -> None:
    said: dict[str, Said] = {**dict.fromkeys(FOUR, "B"), "alpha": GenerationFailed("no"), "beta": None}
    stopped = await connection.subscribe(subjects.cancel_signal("r1"))
    async with aggregating(connection) as mesh, members(connection, said):
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: gather(
                request_id, FOUR, choices=CHOICES, effort="exact", lots=A_FIRST, timeout_s=timeout_s
            ),
            lambda result: len(result.answers) > 2,
            4.0,
        )
        await stopped.next_msg(60)
    assert result.error is None and result.decisions[0].answer == "B"
    assert "beta" in result.missing and cascade_of(result).ended in ("settled", "deadline")
    assert {answer.agent for answer in result.answers} >= {"alpha", "gamma", "delta"}


async def test_bounded_stops_where_a_change_is_improbable_and_says_how_improbable(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, "B")) as asked:
        fields: dict[str, Any] = {"choices": CHOICES, "effort": "bounded", "epsilon": 0.2, "lots": A_FIRST}
        await enqueue(mesh, gather("r1", FOUR, costs=(9.0, 1.0, 1.0, 9.0), **fields))
        cascade = cascade_of(await result_of(mesh, "r1"))
    assert cascade.ended == "likely" and cascade.bound is not None and 0 < cascade.bound <= 0.2
    assert cascade.waves == (("beta", "gamma"),)  # the cheapest first
    assert asked_counts(asked) == [0, 1, 1, 0]


async def test_a_quorum_is_no_more_than_what_is_asked(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(FOUR, "B")) as asked:
        await enqueue(mesh, gather("r1", FOUR, choices=CHOICES, effort="exact", lots=A_FIRST, quorum=3))
        cascade = cascade_of(await result_of(mesh, "r1"))
    assert (cascade.ended, asked_counts(asked)) == ("settled", [1, 1, 0, 0])


async def test_what_another_aggregator_left_is_gone_on_with(connection: Client) -> None:
    """Two answers and a task in its queue: they count as a wave, and nobody is asked that need not be."""
    mesh = open_mesh(connection)
    question = gather("r1", FOUR, choices=CHOICES, effort="exact", lots=A_FIRST)
    await store_answer(mesh, "r1", "delta", "B")
    await store_answer(mesh, "r1", "alpha", "B")
    await enqueue(mesh, question.generate("gamma"))
    await enqueue(mesh, question)
    async with members(connection, dict.fromkeys(FOUR, "B")) as asked, aggregating(connection):
        result = await result_of(mesh, "r1")
    assert cascade_of(result).waves == (("alpha", "gamma", "delta"),)
    assert (result.decisions[0].answer, cascade_of(result).spared) == ("B", ("beta",))
    assert asked_counts(asked) == [0, 0, 1, 0]


async def test_an_aggregator_killed_between_waves_is_replaced_and_nobody_is_asked_twice(
    connection: Client, spawn_service: SpawnService
) -> None:
    """It dies when the second wave is asked, whose answer comes afterwards."""
    mesh = open_mesh(connection)
    process = spawn_service("aggregator", "aggregator-1")
    await process.wait_ready(connection)
    said: dict[str, Said] = {**dict(zip(FOUR, "ABBB", strict=True)), "delta": None}
    async with members(connection, said) as asked:
        await enqueue(mesh, gather("r1", FOUR, choices=CHOICES, effort="exact", lots=A_FIRST))
        await eventually(lambda: bool(asked["delta"].asked))
        process.kill()
        await deliver_again_soon(connection)
        async with aggregating(connection):
            await store_answer(mesh, "r1", "delta", "B")
            result = await result_of(mesh, "r1")
            await eventually(lambda: queue_is_empty(connection))
    assert (result.decisions[0].answer, result.missing, cascade_of(result).spared) == ("B", (), ())
    assert asked_counts(asked) == [1, 1, 1, 1]
