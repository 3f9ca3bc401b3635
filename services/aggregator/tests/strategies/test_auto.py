"""`auto`: whom it asks by what is known, and that it never ends with less than the others could say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, gather
from schemas import subjects
from schemas.ensembles.effort import AutoChoice
from schemas.errors import GenerationFailed
from schemas.replies import FeedbackCounted, Result
from services.aggregator.scores.history import AgentHistory
from services.aggregator.scores.store import Scores
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.auto import FEWEST_JUDGED, auto, chance_of_vote, choose_way
from services.aggregator.strategies.log_odds import log_odds_weight
from services.aggregator.tests.ensemble import Answered, Said, aggregating, members, result_of
from services.chassis.identity import new_id

THREE = ("alpha", "beta", "gamma")
CHOICES = ("cat", "dog", "cow", "hen")


def knowing(right: Mapping[str, int], asked: int = 100, *, topic: str | None = "pets") -> StrategyContext:
    """What is known after so many judged answers of each agent, all on the topic."""
    histories = {agent: AgentHistory(correct=count, asked=asked) for agent, count in right.items()}
    return StrategyContext("seed", 4, topic, histories, histories if topic else {})


def test_the_vote_is_worth_what_all_ways_to_err_together_leave() -> None:
    """Against all 2^N outcomes, one by one: right where the weights of who is right are greater."""
    accuracies = {"a": 0.8, "b": 0.7, "c": 0.7, "d": 0.6, "e": 0.5}
    weights = {agent: log_odds_weight(x, 4) for agent, x in accuracies.items()}
    expected = 0.0
    for outcome in product((True, False), repeat=len(accuracies)):
        lead = sum(w if right else -w for w, right in zip(weights.values(), outcome, strict=True))
        chance = prod(x if right else 1 - x for x, right in zip(accuracies.values(), outcome, strict=True))
        expected += chance * (lead > 0)
    found = chance_of_vote(accuracies, 4, StrategyContext("s", 4))
    assert found == pytest.approx(expected, abs=0.02)


def test_a_specialist_is_asked_alone_equals_vote_and_the_unknown_are_all_asked() -> None:
    alone = choose_way(THREE, knowing({"alpha": 97, "beta": 40, "gamma": 45}))
    assert (alone.way, alone.members, alone.best) == ("single", ("alpha",), "alpha")
    assert alone.together is not None and alone.alone is not None and alone.alone > 0.9
    equals = choose_way(THREE, knowing(dict.fromkeys(THREE, 80)))
    assert (equals.way, equals.members) == ("cascade", THREE)
    assert equals.together is not None and equals.together > (equals.alone or 1)
    few = FEWEST_JUDGED - 1
    for context in (StrategyContext("s", 4), knowing(dict.fromkeys(THREE, few), few)):
        assert choose_way(THREE, context).way == "full"
    elsewhere = knowing({"alpha": 97, "beta": 40, "gamma": 45})
    assert choose_way(THREE, StrategyContext("s", 4, "cars", elsewhere.history)).way == "full"
    assert choose_way(THREE, StrategyContext("s", 4, None, elsewhere.history)).way == "single"


def test_a_tie_is_said_and_the_cheaper_way_taken_and_samples_only_where_they_are_paid_for() -> None:
    context = knowing({"alpha": 90, "beta": 20, "gamma": 20})
    chosen = choose_way(THREE, context)
    assert chosen.way == "single" and "a tie, and it is cheaper" in chosen.why
    assert choose_way(THREE, context, sampled=True).way == "samples"


def test_only_the_votes_of_whom_it_asks_count_unless_they_say_nothing() -> None:
    context = knowing({"alpha": 97, "beta": 40, "gamma": 45})
    others = [Ballot("beta", "B", "B"), Ballot("gamma", "B", "B")]
    decision = auto([Ballot("alpha", "A", "A"), *others], context)
    assert (decision.answer, [vote.agent for vote in decision.votes]) == ("A", ["alpha"])
    silent = auto([Ballot("alpha", "?", None), *others], context)
    assert (silent.answer, silent.note) == ("B", "alpha gave no answer: all are asked")


async def test_the_specialist_alone_is_asked_and_all_where_it_fails(connection: Client) -> None:
    scores = Scores(connection)
    await scores.start()
    for agent, right in (("alpha", True), ("beta", False)):
        for _ in range(FEWEST_JUDGED):
            await scores.record(agent, right, "pets")
    await eventually(lambda: len(scores.history.topics.get("pets", {})) == 2)
    await scores.stop()
    fails: dict[str, Answered] = {"r2": GenerationFailed("out of memory"), "r3": "I cannot say."}
    said: dict[str, Said] = {
        **dict.fromkeys(("beta", "gamma"), "B"),
        "alpha": lambda command: fails.get(command.request_id, "A"),
    }
    async with aggregating(connection) as mesh, members(connection, said) as asked:
        for request_id, topic in (("r1", "pets"), ("r2", "pets"), ("r3", "pets"), ("r4", "cars")):
            question = gather(request_id, THREE, strategies=("auto",), choices=CHOICES, topic=topic)
            await enqueue(mesh, question)
        alone, failed, unreadable, unknown = [await result_of(mesh, f"r{n}") for n in range(1, 5)]
    assert (alone.text, [each.agent for each in alone.answers], alone.missing) == ("A", ["alpha"], ())
    assert (way_of(alone).way, way_of(alone).best, way_of(alone).topic) == ("single", "alpha", "pets")
    assert (alone.decisions[0].strategy, alone.decisions[0].note) == ("auto", way_of(alone).why)
    for result in (failed, unreadable):
        assert (result.decisions[0].answer, way_of(result).way) == ("B", "full")
        assert way_of(result).why == "alpha gave no answer: all are asked"
    assert (way_of(unknown).way, len(unknown.answers)) == ("full", 3)
    assert [len(asked[name].asked) for name in THREE] == [4, 3, 3]


def way_of(result: Result) -> AutoChoice:
    assert result.auto is not None
    return result.auto


async def test_ten_judged_answers_teach_it_whom_to_ask(connection: Client) -> None:
    """Through the door that clients use: everybody is asked until enough is known, and says so."""
    said: dict[str, Said] = {**dict.fromkeys(("beta", "gamma"), "B"), "alpha": "A"}
    question: dict[str, Any] = {"strategies": ("auto",), "choices": CHOICES, "topic": "pets"}
    async with aggregating(connection) as mesh, members(connection, said):
        for number in range(FEWEST_JUDGED):
            await enqueue(mesh, gather(f"r{number}", THREE, **question))
            result = await result_of(mesh, f"r{number}")
            assert (way_of(result).way, len(result.answers)) == ("full", 3)
            feedback = json.dumps({"request_id": f"r{number}", "correct": "A"}).encode()
            reply = await connection.request(subjects.FEEDBACK, feedback, timeout=60)
            assert FeedbackCounted.model_validate_json(reply.data).right == ("alpha",)

        async def asks_one() -> Result | None:
            await enqueue(mesh, gather(request_id := new_id(), THREE, **question))
            result = await result_of(mesh, request_id)
            return result if way_of(result).way != "full" else None

        taught = await eventually(asks_one)
    assert (way_of(taught).way, way_of(taught).best, taught.text) == ("single", "alpha", "A")
    assert way_of(taught).why.startswith("alpha alone is expected to be right on ")
