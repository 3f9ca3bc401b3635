"""From answers to ballots to decisions: every strategy sees the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from schemas.commands import AnswerKind
from schemas.ensembles.rounds import DEBATE, PREDICTION, SAMPLES_FROM, WITHOUT_LOGPROBS
from schemas.errors import ChoirError, GenerationFailed, UnknownStrategy
from schemas.replies import Answer
from services.aggregator.decide import Question, decide, options_of
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.scores.history import AgentHistory, History
from services.aggregator.strategies import Ballot, Ballots
from services.aggregator.tests.ensemble import answer


def said(texts: Mapping[str, str | ChoirError], round_: int = 1, **more: Any) -> list[Answer]:
    return [
        answer("r1", agent, text).model_copy(update={"round": round_, **more})
        for agent, text in texts.items()
    ]


def cast(letters: Sequence[str]) -> Ballots:
    return Ballots(tuple(Ballot(f"agent-{i}", letter, letter) for i, letter in enumerate(letters)))


def test_errors_cast_no_ballot_and_what_cannot_be_read_abstains() -> None:
    ballots = read_ballots(
        said({"alpha": GenerationFailed("no"), "gamma": "I would rather not say"}), "number"
    )
    assert [(ballot.agent, ballot.answer) for ballot in ballots.first] == [("gamma", None)]


@pytest.mark.parametrize(("kind", "choices", "read"), [("auto", ("cat", "dog"), "B"), ("text", (), "b")])
def test_answers_are_read_as_the_request_says(kind: AnswerKind, choices: tuple[str, ...], read: str) -> None:
    (ballot,) = read_ballots(said({"alpha": "The answer is (B)."}), kind, choices).first
    assert ballot.answer == read


def test_the_answers_of_each_round_have_a_place_of_their_own() -> None:
    ballots = read_ballots(
        [
            *said({"alpha": "A", "beta": "B"}),
            *said({"alpha": "B", "beta": GenerationFailed("no")}, DEBATE),
            *said({"alpha": "Most will say A.", "beta": "no idea"}, PREDICTION),
            *said({"alpha": "C"}, SAMPLES_FROM + 1),
            *said({"alpha": "D"}, SAMPLES_FROM),
        ],
        "choice",
        ("cat", "dog", "cow", "hen"),
    )
    assert [(b.agent, b.answer, b.predicted) for b in ballots.first] == [
        ("alpha", "A", "A"),
        ("beta", "B", None),
    ]
    assert [(b.agent, b.answer) for b in ballots.second_round or ()] == [("alpha", "B")]
    assert [b.answer for b in ballots.samples] == ["D", "C"]
    assert read_ballots(said({"alpha": "A"}), "choice", ("cat", "dog")).second_round is None


def test_who_can_give_no_logprobs_votes_with_the_answer_that_it_gave_without_them() -> None:
    refused = said({"alpha": GenerationFailed("no logprobs", field="sampling.logprobs"), "beta": "B"})
    ballots = read_ballots([*refused, *said({"alpha": "A"}, WITHOUT_LOGPROBS)], "choice", ("cat", "dog"))
    assert [(b.agent, b.answer) for b in ballots.first] == [("alpha", "A"), ("beta", "B")]


def test_probabilities_that_were_read_before_are_taken_as_they_are() -> None:
    kept = said({"alpha": "A"}, option_probabilities={"A": 0.75, "B": 0.25})
    (ballot,) = read_ballots(kept, "choice", ("cat", "dog")).first
    assert ballot.probabilities == {"A": 0.75, "B": 0.25}


def test_two_strategies_decide_from_one_set_of_ballots_and_may_differ() -> None:
    history = History(
        agents={
            "agent-0": AgentHistory(correct=900, asked=1000),
            "agent-1": AgentHistory(correct=300, asked=1000),
            "agent-2": AgentHistory(correct=300, asked=1000),
        }
    )
    weighted, majority = decide(("weighted", "majority"), cast("ABB"), Question("q", 4), history)
    assert (weighted.strategy, weighted.answer) == ("weighted", "A")
    assert (majority.strategy, majority.answer) == ("majority", "B")
    assert [vote.answer for vote in weighted.votes] == [vote.answer for vote in majority.votes]


def test_what_is_known_of_a_topic_counts_only_for_questions_on_it() -> None:
    expert = {"agent-0": AgentHistory(correct=30, asked=30)}
    history = History(agents={"agent-1": AgentHistory(correct=70, asked=100)}, topics={"capitals": expert})
    (on_topic,) = decide(("topic",), cast("AB"), Question("q", 4, "capitals"), history)
    (elsewhere,) = decide(("topic",), cast("AB"), Question("q", 4, "elements"), history)
    assert (on_topic.answer, elsewhere.answer) == ("A", "B")


def test_a_tie_falls_alike_whenever_the_same_is_asked_and_not_always_for_the_same_option() -> None:
    winners = {
        seed: {decide(("majority",), cast("ABC"), Question(seed, 3), History())[0].answer for _ in range(3)}
        for seed in "abcdefgh"
    }
    assert all(len(each) == 1 for each in winners.values())
    assert len(set.union(*winners.values())) > 1


@pytest.mark.parametrize(
    ("kind", "choices", "options"),
    [
        ("auto", ("x", "y", "z"), 3),
        ("choice", ("x", "y"), 2),
        ("number", ("1", "2"), None),
        ("auto", (), None),
    ],
)
def test_a_question_is_closed_where_its_answers_are_letters(
    kind: AnswerKind, choices: tuple[str, ...], options: int | None
) -> None:
    assert options_of(kind, choices) == options


def test_a_strategy_that_is_not_in_the_table_is_an_error() -> None:
    with pytest.raises(UnknownStrategy):
        decide(("dice",), cast("A"), Question("q"), History())
