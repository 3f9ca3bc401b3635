"""What is made from the answers themselves: one text written from all, or the one that most prefer."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, eventually, gather, queue_is_empty
from schemas.commands import ChatMessage, Generate
from schemas.ensembles.rounds import (
    COMPARISONS_FROM,
    OWN_SYNTHESIS,
    QUESTION,
    SYNTHESIS,
    comparison_round,
    purpose_of,
    vector_round,
)
from schemas.errors import GenerationFailed
from schemas.replies import Answer, Embeddings
from services.aggregator.reading.ballots import as_shown
from services.aggregator.receipts.checking import faults_of
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.ballot import Comparison
from services.aggregator.strategies.rounds.nearest import NO_VECTORS, ONE_TEXT, cosine, nearest
from services.aggregator.strategies.rounds.rank import NOT_COMPARED, rank
from services.aggregator.strategies.texts.synthesize import NOT_WRITTEN, NOTHING_TO_JOIN, synthesize
from services.aggregator.strategies.texts.synthesize_samples import synthesize_samples
from services.aggregator.tasks import comparison_tasks
from services.aggregator.tests.ensemble import (
    Answered,
    aggregating,
    answer,
    members,
    result_in_time,
    result_of,
)

THREE = ("alpha", "beta", "gamma")
TEXTS = {"alpha": "Seas rise.", "beta": "Ice melts, so seas rise. [good]", "gamma": "I like boats."}
BALLOTS = [Ballot(agent, text, text) for agent, text in TEXTS.items()]


def test_the_answer_with_the_most_comparisons_won_is_chosen() -> None:
    said = (("gamma", "beta", "alpha"), ("alpha", "beta", "gamma"), ("beta", "gamma", "alpha"))
    comparisons = tuple(Comparison(judge, won, lost) for judge, won, lost in said)
    decision = rank(BALLOTS, StrategyContext("s", comparisons=comparisons))
    assert decision.text == TEXTS["beta"]
    assert [vote.weight for vote in decision.votes] == [0.0, 1.0, 0.5]
    assert rank(BALLOTS, StrategyContext("s")).note == NOT_COMPARED


def test_nobody_judges_its_own_and_places_fall_by_lot() -> None:
    pairs = {comparison_round(*pair): pair for pair in (THREE[:2], THREE[1:], THREE[::2])}
    assert len(pairs) == 3 and all(purpose_of(round_) == "comparison" for round_ in pairs)
    asked = comparison_tasks(gather("r1", THREE), BALLOTS)
    assert sorted(task.agent for task in asked) == sorted(THREE)
    for task in asked:
        assert task.agent not in pairs[task.round] and task.sampling.temperature == 0
        first, second = as_shown(task.agent, *pairs[task.round])
        text = task.messages[-1].content
        assert text.index(TEXTS[first]) < text.index(TEXTS[second])
    first_places = {as_shown(f"judge-{n}", "one", "other")[0] for n in range(16)}
    assert first_places == {"one", "other"} and as_shown("j", "a", "b") == as_shown("j", "b", "a")
    assert len(comparison_tasks(gather("r1", THREE[:2]), BALLOTS[:2])) == 2
    assert comparison_tasks(gather("r1", THREE[:2]), [BALLOTS[0], Ballot("beta", "x", "Seas rise.")]) == []


@pytest.mark.parametrize("texts", [("same", "same"), ("one", "other")])
def test_where_nothing_was_written_the_majority_decides_and_it_is_said_why(texts: tuple[str, str]) -> None:
    decision = synthesize([Ballot(str(n), text, text) for n, text in enumerate(texts)], StrategyContext("s"))
    assert decision.text in texts
    assert decision.note == (NOTHING_TO_JOIN if texts[0] == texts[1] else NOT_WRITTEN)


async def test_one_answer_is_written_from_all_and_each_two_are_compared(connection: Client) -> None:
    question = "Why?"

    def say(command: Generate) -> Answered:
        told = command.messages[-1].content
        if command.round == QUESTION:
            silent = command.request_id not in ("asked", "failing") and command.agent == "gamma"
            return None if silent else TEXTS[command.agent]
        if command.round >= COMPARISONS_FROM:
            return "Answer A" if "[good]" in told.partition("Answer B:")[0] else "B"
        return GenerationFailed("no") if command.request_id == "failing" else f"From {told.count('Answer ')}."

    async with aggregating(connection) as mesh, members(connection, dict.fromkeys(THREE, say)) as asked:
        asking = (ChatMessage(role="user", content=question),)
        fields: dict[str, Any] = {"strategies": ("synthesize", "rank"), "messages": asking}
        await enqueue(mesh, gather("asked", THREE, synthesizer="gamma", **fields))
        await enqueue(mesh, gather("failing", THREE, **fields))
        late = await result_in_time(
            mesh,
            lambda request_id, timeout_s: gather(request_id, THREE, timeout_s=timeout_s, **fields),
            lambda result: result.text == "From 2.",
            4.0,
        )
        result, failed = [await result_of(mesh, request_id) for request_id in ("asked", "failing")]
        await eventually(lambda: queue_is_empty(connection))
    written, preferred = result.decisions
    assert (result.text, written.note) == ("From 3.", "written by gamma from 3 texts")
    assert preferred.text == TEXTS["beta"]
    (writing,) = asked["gamma"].asked_in(SYNTHESIS)
    told = writing.messages[-1].content
    assert told.endswith(question) and all(f": {text}" in told for text in TEXTS.values())
    assert sorted(purpose_of(a.round) for a in result.further_answers) == ["comparison"] * 3 + ["synthesis"]
    assert (late.text, late.missing) == ("From 2.", ("gamma",))
    assert failed.error is None and failed.decisions[0].note == NOT_WRITTEN
    assert not any(member.asked_in(OWN_SYNTHESIS) for member in asked.values())


def test_the_baseline_is_written_from_the_best_agent_s_own() -> None:
    samples = (Ballot("beta", "Another.", "another"),)
    own = StrategyContext("s", samples=samples, own_synthesis=Ballot("beta", "One.", "one"))
    decision = synthesize_samples(BALLOTS, own)
    assert (decision.text, decision.note) == ("One.", "written by beta from 2 texts")
    assert [vote.agent for vote in decision.votes] == ["beta", "beta"]


VECTORS = {"alpha": (1.0, 0.0), "beta": (0.8, 0.6), "gamma": (-0.6, 0.8)}


def test_the_answer_with_the_greatest_mean_cosine_to_the_others_is_chosen() -> None:
    """By hand: alpha and beta 0.8, beta and gamma 0, alpha and gamma -0.6, which counts as 0."""
    decision = nearest(BALLOTS, StrategyContext("s", vectors=VECTORS))
    assert [vote.weight for vote in decision.votes] == pytest.approx([0.4, 0.4, 0.0])
    assert decision.tie and decision.text in (TEXTS["alpha"], TEXTS["beta"])
    closer = VECTORS | {"gamma": (0.0, 1.0)}
    decision = nearest(BALLOTS, StrategyContext("s", vectors=closer))
    assert [vote.weight for vote in decision.votes] == pytest.approx([0.4, 0.7, 0.3])
    assert decision.text == TEXTS["beta"] and decision.share == pytest.approx(0.5)
    assert nearest(BALLOTS, StrategyContext("s", vectors={"alpha": (1.0, 0.0)})).note == NO_VECTORS
    assert nearest([BALLOTS[0]], StrategyContext("s")).note == ONE_TEXT
    assert cosine((1.0,), (1.0, 0.0)) == 0.0 == cosine((0.0, 0.0), (1.0, 0.0))


def test_alike_answers_do_not_outvote_those_that_mean_the_same() -> None:
    """Two say the same words, and three mean another thing in words of their own."""
    said = {"a": "Yes.", "b": "Yes.", "c": "No.", "d": "By no means.", "e": "Never."}
    ballots = [Ballot(agent, text, text.lower()) for agent, text in said.items()]
    no = (1.0, 0.0, 0.1)
    vectors = {
        "a": (0.0, 1.0, 0.0),
        "b": (0.0, 1.0, 0.0),
        "c": no,
        "d": (*no[:2], 0.2),
        "e": (*no[:2], 0.3),
    }
    decision = nearest(ballots, StrategyContext("s", vectors=vectors))
    assert decision.text == "By no means."


async def test_one_model_makes_the_vectors_of_all_and_a_receipt_is_decided_again(connection: Client) -> None:
    places = {TEXTS["alpha"]: (1.0, 0.0), TEXTS["beta"]: (0.8, 0.6), TEXTS["gamma"]: (0.0, 1.0)}

    def say(command: Generate) -> Answered:
        if command.embed is None:
            return TEXTS[command.agent]
        if command.request_id == "r2":
            return GenerationFailed("no")
        (text,) = command.embed.inputs
        made: Answer = answer(command.request_id, command.agent, "", command.round)
        return made.model_copy(update={"embeddings": Embeddings.of([places[text]])})

    asking: dict[str, Any] = {"strategies": ("nearest",), "embedder": "delta", "receipt": True}
    everybody = dict.fromkeys((*THREE, "delta"), say)
    async with aggregating(connection) as mesh, members(connection, everybody) as asked:
        await enqueue(mesh, gather("r1", THREE, **asking))
        await enqueue(mesh, gather("r2", THREE, **asking))
        result, failed = await result_of(mesh, "r1"), await result_of(mesh, "r2")
        await eventually(lambda: queue_is_empty(connection))
    assert (result.text, result.decisions[0].note) == (TEXTS["beta"], None)
    assert {each.round for each in asked["delta"].asked if each.request_id == "r1"} == {
        vector_round(agent) for agent in THREE
    }
    assert {purpose_of(each.round) for each in result.further_answers} == {"vector"}
    assert faults_of(result) == []
    assert failed.error is None and failed.decisions[0].note == NO_VECTORS
