"""Rounds beyond the question, on a real broker: asked only where a strategy needs them, and never twice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, gather, open_mesh, queue_is_empty
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.ensembles.rounds import DEBATE, PREDICTION, QUESTION, SAMPLES_FROM, WITHOUT_LOGPROBS
from schemas.ensembles.strategies import SPECS
from schemas.errors import ContextExceeded, InvalidRequest
from schemas.replies import Decision, Result
from services.aggregator.scores.store import Scores
from services.aggregator.strategies.rounds.average import WITHOUT_PROBABILITIES
from services.aggregator.strategies.rounds.best_single import WITHOUT_HISTORY
from services.aggregator.strategies.rounds.debate import NO_SECOND_ROUND, UNANIMOUS
from services.aggregator.tasks import SAMPLE_TEMPERATURE
from services.aggregator.tests.ensemble import (
    Answered,
    Said,
    aggregating,
    answer,
    members,
    result_in_time,
    result_of,
    store_answer,
)
from services.chassis.context import ServiceContext

THREE = ("alpha", "beta", "gamma")
CHOICES = ("Paris", "London", "Rome", "Oslo")
FIRST = {"alpha": "A", "beta": "B", "gamma": "B"}


def by_round(answers: dict[int, Answered]) -> Callable[[Generate], Answered]:
    """Says something else in each round."""
    return lambda command: answers.get(command.round)


def closed(request_id: str, *strategies: str, **fields: object) -> Gather:
    return gather(request_id, THREE, strategies=strategies, choices=CHOICES, **fields)  # type: ignore[arg-type]


def decisions_of(result: Result) -> dict[str, Decision]:
    return {decision.strategy: decision for decision in result.decisions}


async def test_all_direct_strategies_together_cost_one_fan_out(connection: Client) -> None:
    direct = tuple(spec.name for spec in SPECS if not spec.asks)
    async with aggregating(connection) as mesh, members(connection, dict(FIRST)) as asked:
        await asyncio.gather(*(enqueue(mesh, closed(f"r{i}", *direct)) for i in range(5)))
        results = [await result_of(mesh, f"r{i}") for i in range(5)]
        await eventually(lambda: queue_is_empty(connection))
    assert len(direct) == 9
    assert sum(len(member.asked) for member in asked.values()) == 5 * len(THREE)
    assert [tuple(decisions_of(result)) for result in results] == [direct] * 5
    assert {result.further_answers for result in results} == {()}


async def test_a_debate_shows_each_agent_the_others_full_answers(connection: Client) -> None:
    texts = {"alpha": "A, because of the Seine.", "beta": "B, because of the Thames.", "gamma": "B"}
    said = {name: by_round({QUESTION: text, DEBATE: "Answer: A"}) for name, text in texts.items()}
    async with aggregating(connection) as mesh, members(connection, dict(said)) as asked:
        await enqueue(mesh, closed("r1", "majority", "debate", stream=True))
        result = await result_of(mesh, "r1")
    decided = decisions_of(result)
    assert (decided["majority"].answer, decided["debate"].answer) == ("B", "A")
    assert decided["debate"].share == 1.0 and decided["debate"].note is None
    assert [(each.round, each.agent) for each in result.further_answers] == [(DEBATE, name) for name in THREE]
    (second,) = asked["alpha"].asked_in(DEBATE)
    question, own, others = second.messages
    assert question == asked["alpha"].asked[0].messages[0]
    assert (own.role, own.content) == ("assistant", texts["alpha"])
    assert texts["beta"] in others.content and texts["alpha"] not in others.content
    assert others.content.endswith(question.content)
    assert [command.stream for command in asked["alpha"].asked] == [True, False]


async def test_a_unanimous_first_round_stops_the_debate(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(THREE, "C")) as asked:
        await enqueue(mesh, closed("r1", "debate"))
        (decision,) = (await result_of(mesh, "r1")).decisions
        await eventually(lambda: queue_is_empty(connection))
    assert (decision.answer, decision.note) == ("C", UNANIMOUS)
    assert [len(member.asked) for member in asked.values()] == [1, 1, 1]


async def test_a_second_round_that_does_not_fit_leaves_the_first_and_that_is_said(connection: Client) -> None:
    said: dict[str, Said] = {name: by_round({QUESTION: text}) for name, text in FIRST.items()}
    stopped = await connection.subscribe(subjects.cancel_signal("r1"))
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: closed(request_id, "debate", timeout_s=timeout_s),
            lambda result: not result.missing and all(member.asked_in(DEBATE) for member in asked.values()),
            2.0,
        )
        await stopped.next_msg(60)
    assert all(member.asked_in(DEBATE) for member in asked.values())
    assert (result.decisions[0].answer, result.decisions[0].note) == ("B", NO_SECOND_ROUND)
    assert (result.missing, result.error) == ((), None)


async def test_who_cannot_answer_again_keeps_its_first_answer(connection: Client) -> None:
    said: dict[str, Said] = {name: by_round({QUESTION: text, DEBATE: "A"}) for name, text in FIRST.items()}
    said["gamma"] = by_round({QUESTION: "B", DEBATE: ContextExceeded("too long")})
    async with aggregating(connection) as mesh, members(connection, said):
        await enqueue(mesh, closed("r1", "debate"))
        (decision,) = (await result_of(mesh, "r1")).decisions
    assert decision.answer == "A"
    assert decision.note == "no second answer of gamma: the first one counts"


async def test_a_silent_agent_does_not_take_the_time_of_the_debate(connection: Client) -> None:
    said: dict[str, Said] = {
        "alpha": by_round({QUESTION: "A", DEBATE: "D"}),
        "beta": by_round({QUESTION: "B", DEBATE: "D"}),
        "gamma": None,
    }
    async with aggregating(connection) as mesh, members(connection, said):
        result = await result_in_time(
            mesh,
            lambda request_id, timeout_s: closed(request_id, "majority", "debate", timeout_s=timeout_s),
            lambda result: result.error is None and decisions_of(result)["debate"].answer == "D",
            3.0,
        )
    assert result.missing == ("gamma",)
    assert decisions_of(result)["debate"].answer == "D"
    assert decisions_of(result)["majority"].tie


async def test_a_late_answer_that_differs_still_opens_the_debate(connection: Client) -> None:
    """At half time the two that have answered agree; the third does not, and there is time left."""
    said: dict[str, Said] = {name: by_round({QUESTION: "B", DEBATE: "C"}) for name in ("alpha", "beta")}
    said["gamma"] = by_round({DEBATE: "C"})
    async with aggregating(connection) as mesh, members(connection, said):
        question = closed("r1", "debate", timeout_s=120.0)
        await enqueue(mesh, question.model_copy(update={"accepted_at_s": question.accepted_at_s - 120.0}))
        await eventually(lambda: answered(mesh, "beta"))
        await store_answer(mesh, "r1", "gamma", "A")
        (decision,) = (await result_of(mesh, "r1")).decisions
    assert (decision.answer, decision.share, decision.note) == ("C", 1.0, None)


async def answered(mesh: ServiceContext, agent: str) -> bool:
    """Whether an agent's answer to the question is stored."""
    stored = await mesh.storage.last(subjects.ANSWERS_STREAM, subjects.answer("r1", QUESTION, agent))
    return stored is not None


async def test_agents_are_asked_what_the_others_will_say_beside_the_question(connection: Client) -> None:
    said: dict[str, Said] = {
        "alpha": by_round({QUESTION: "A", PREDICTION: "B"}),
        "beta": by_round({QUESTION: "B", PREDICTION: "B"}),
        "gamma": by_round({QUESTION: "B", PREDICTION: "B"}),
    }
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, closed("r1", "majority", "isp_elicited"))
        decided = decisions_of(await result_of(mesh, "r1"))
    assert (decided["majority"].answer, decided["isp_elicited"].answer) == ("B", "A")
    assert [len(member.asked) for member in asked.values()] == [2, 2, 2]
    (question,) = asked["beta"].asked_in(PREDICTION)[0].messages
    plain = asked["beta"].asked_in(QUESTION)[0].messages[0].content
    assert question.content.endswith(plain) and question.content != plain


async def test_the_best_agent_is_sampled_under_other_seeds(connection: Client) -> None:
    said: dict[str, Said] = {name: text for name, text in FIRST.items()}
    said["alpha"] = by_round({QUESTION: "A", SAMPLES_FROM: "C", SAMPLES_FROM + 1: "C", SAMPLES_FROM + 2: "C"})
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await know_who_is_best(connection, "alpha")
        await enqueue(mesh, closed("r1", "best_single", samples=4))
        result = await result_of(mesh, "r1")
    (decision,) = result.decisions
    assert (decision.answer, decision.share) == ("C", 0.75)
    samples = [command.sampling for command in asked["alpha"].asked if command.round >= SAMPLES_FROM]
    assert sorted(sampling.seed for sampling in samples) == [1, 2, 3]
    assert {sampling.temperature for sampling in samples} == {SAMPLE_TEMPERATURE}
    assert [len(asked[name].asked) for name in ("beta", "gamma")] == [1, 1]


async def know_who_is_best(connection: Client, agent: str) -> None:
    """Returns when the mesh knows that `agent` was right once."""
    scores = Scores(connection)
    await scores.start()
    await scores.record(agent, True)
    await eventually(lambda: agent in scores.history.agents)
    await scores.stop()


async def test_as_long_as_nobody_is_best_nobody_is_sampled(connection: Client) -> None:
    async with aggregating(connection) as mesh, members(connection, dict(FIRST)) as asked:
        await enqueue(mesh, closed("r1", "best_single"))
        (decision,) = (await result_of(mesh, "r1")).decisions
    assert (decision.answer, decision.note) == ("B", WITHOUT_HISTORY)
    assert [len(member.asked) for member in asked.values()] == [1, 1, 1]


def with_logprobs(letter: str, probability: float) -> Callable[[Generate], Answered]:
    """Answers with one letter, and says how probable it was, if it is asked for that."""

    def say(command: Generate) -> Answered:
        assert command.sampling.logprobs >= len(CHOICES)
        token = {"text": letter, "logprob": -0.1, "top": tuple(top(letter, probability))}
        plain = answer(command.request_id, command.agent, letter, command.round)
        return plain.model_copy(update={"logprobs": (token,)})

    return say


def top(letter: str, probability: float) -> list[dict[str, object]]:
    rest = (1 - probability) / 3
    return [{"text": x, "logprob": math.log(probability if x == letter else rest)} for x in "ABCD"]


async def test_option_probabilities_are_read_from_the_answers_themselves(connection: Client) -> None:
    said: dict[str, Said] = {
        "alpha": with_logprobs("A", 0.94),
        "beta": with_logprobs("B", 0.4),
        "gamma": with_logprobs("B", 0.4),
    }
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, closed("r1", "majority", "average"))
        result = await result_of(mesh, "r1")
    decided = decisions_of(result)
    assert (decided["majority"].answer, decided["average"].answer) == ("B", "A")
    assert decided["average"].scores["A"] == pytest.approx((0.94 + 0.2 + 0.2) / 3)
    assert [len(member.asked) for member in asked.values()] == [1, 1, 1]
    assert [each.logprobs for each in result.answers] == [(), (), ()]
    assert (result.answers[0].option_probabilities or {})["A"] == pytest.approx(0.94)


async def test_who_has_no_logprobs_is_asked_without_them_and_abstains_from_the_average(
    connection: Client,
) -> None:
    refusal = InvalidRequest("sampling.logprobs: cannot do that", field="sampling.logprobs")
    said: dict[str, Said] = {
        name: by_round({QUESTION: refusal, WITHOUT_LOGPROBS: text}) for name, text in FIRST.items()
    }
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        await enqueue(mesh, closed("r1", "majority", "average"))
        result = await result_of(mesh, "r1")
    decided = decisions_of(result)
    assert (decided["majority"].answer, result.missing) == ("B", ())
    assert (decided["average"].answer, decided["average"].note) == (None, WITHOUT_PROBABILITIES)
    assert [each.text for each in result.answers] == ["A", "B", "B"]
    assert [command.sampling.logprobs for command in asked["alpha"].asked] == [20, 0]


async def test_an_aggregator_killed_between_rounds_is_replaced_and_nothing_is_asked_twice(
    connection: Client, spawn_service: SpawnService
) -> None:
    """The first one dies when two of three have given their second answer; the third comes afterwards."""
    said: dict[str, Said] = {name: by_round({QUESTION: text, DEBATE: "D"}) for name, text in FIRST.items()}
    mesh = open_mesh(connection)
    process = spawn_service("aggregator", "aggregator-1")
    await process.wait_ready(connection)
    said["gamma"] = by_round({QUESTION: "B"})
    async with members(connection, said) as asked:
        await enqueue(mesh, closed("r1", "majority", "debate"))
        await eventually(lambda: all(member.asked_in(DEBATE) for member in asked.values()))
        process.kill()
        await deliver_again_soon(connection)
        async with aggregating(connection):
            await store_answer(mesh, "r1", "gamma", "D", DEBATE)
            result = await result_of(mesh, "r1")
            await eventually(lambda: queue_is_empty(connection))
    assert decisions_of(result)["debate"].votes == tuple(
        vote.model_copy(update={"answer": "D"}) for vote in decisions_of(result)["majority"].votes
    )
    assert [len(member.asked) for member in asked.values()] == [2, 2, 2]


async def deliver_again_soon(connection: Client) -> None:
    """Makes the broker give up waiting for whoever took an ensemble after a second, not after twelve."""
    js = connection.jetstream()
    consumer = subjects.gather_consumer("interactive")
    config = (await js.consumer_info(subjects.COMMANDS_STREAM, consumer)).config
    config.ack_wait = 1.0
    await js.add_consumer(subjects.COMMANDS_STREAM, config)
