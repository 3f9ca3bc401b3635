"""What holds for every strategy of the table, whatever it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ensembles.strategies import SPECS, STRATEGIES, asked_for
from schemas.errors import UnknownStrategy
from services.aggregator import strategies
from services.aggregator.decide import Question, context_of
from services.aggregator.scores.history import History
from services.aggregator.scores.learning import learn_answers, learn_label
from services.aggregator.strategies import Ballot, Ballots, Strategy, StrategyContext
from services.aggregator.strategies.ballot import Tally

every_strategy = pytest.mark.parametrize(("name", "strategy"), strategies.TABLE.items())
AGENTS = ("v", "w", "x", "y", "z")


def ballot(agent: str, letter: str | None, chance: random.Random) -> Ballot:
    """A ballot with all that any strategy could want."""
    weights = [chance.random() + (option == letter) for option in "ABCD"]
    probabilities = {option: weight / sum(weights) for option, weight in zip("ABCD", weights, strict=True)}
    return Ballot(agent, f"{agent} says {letter}", letter, probabilities, chance.choice("ABCD"))


def mesh_that_knows(seed: int, questions: int = 30) -> History:
    """A history of some questions, on which agents are right more often the later they are named."""
    chance, history = random.Random(seed), History()
    for number in range(questions):
        question = Question(f"q{number}", 4, chance.choice(("capitals", "elements")))
        ballots = [
            Ballot(agent, "", "A" if chance.random() < (i + 3) / 10 else chance.choice("BCD"))
            for i, agent in enumerate(AGENTS)
        ]
        learn_answers(history, ballots, question)
        learn_label(history, ballots, "A", question.topic)
    return history


def what_counts(decision: Tally) -> tuple[object, ...]:
    """A decision without the order in which it names the agents."""
    scores = {answer: round(score, 9) for answer, score in decision.scores.items()}
    votes = sorted((vote.agent, vote.answer or "", round(vote.weight, 9)) for vote in decision.votes)
    return decision.answer, decision.tie, scores, votes, sorted(decision.abstained), decision.note


@every_strategy
def test_each_signs_its_decisions_and_decides_alike_every_time(name: str, strategy: Strategy) -> None:
    ballots = [Ballot("x", "18", "18"), Ballot("y", "17", "17"), Ballot("z", "?", None)]
    decision = strategy(ballots, StrategyContext(seed="r"))
    assert decision.strategy == name
    assert decision == strategy(ballots, StrategyContext(seed="r"))


@every_strategy
def test_without_ballots_nothing_is_decided(name: str, strategy: Strategy) -> None:
    decision = strategy([], StrategyContext(seed="r", options=4))
    assert (decision.answer, decision.text, decision.share, decision.votes) == (None, None, 0.0, ())


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("concat", "average")])
def test_a_tie_is_said_and_falls_by_lot(name: str) -> None:
    ballots = [Ballot("x", "A", "A"), Ballot("y", "B", "B")]
    decided = [strategies.get(name)(ballots, StrategyContext(seed=str(i), options=4)) for i in range(12)]
    assert all(decision.tie for decision in decided)
    assert {decision.answer for decision in decided} == {"A", "B"}


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("concat", "average")])
def test_where_nothing_is_known_the_majority_decides(name: str) -> None:
    ballots = [Ballot("x", "A", "A"), Ballot("y", "B", "B"), Ballot("z", "B", "B"), Ballot("w", "?", None)]
    decision = strategies.get(name)(ballots, StrategyContext(seed="r", options=4))
    assert decision.answer == "B"
    assert decision.abstained == ("w",)


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("ABCD")), min_size=5, max_size=5),
    st.permutations(range(5)),
    st.integers(0, 9),
)
def test_who_stands_first_does_not_matter(letters: list[str | None], order: list[int], seed: int) -> None:
    chance = random.Random(seed)
    first = [ballot(agent, letter, chance) for agent, letter in zip(AGENTS, letters, strict=True)]
    second = [ballot(agent, chance.choice("ABCD"), chance) for agent in AGENTS[1:]]
    question, history = Question(str(seed), 4, "capitals"), mesh_that_knows(seed, questions=seed)
    one, other = (
        Ballots(tuple(first[i] for i in places), tuple(second[i] for i in places if i < len(second)), ())
        for places in (range(5), order)
    )
    for name in STRATEGIES:
        if name != "concat":
            decide = strategies.get(name)
            decided = [
                what_counts(decide(ballots.first, context_of(question, history, ballots)))
                for ballots in (one, other)
            ]
            assert decided[0] == decided[1], name


def test_what_is_asked_beyond_the_question_is_declared() -> None:
    assert (
        asked_for(("majority", "weighted", "topic", "isp", "ow_l", "ow_i", "dawid_skene", "concat")) == set()
    )
    assert asked_for(("majority", "debate", "best_single")) == {"second_round", "samples"}
    assert asked_for(("isp_elicited", "average")) == {"predictions", "probabilities"}
    assert [spec.name for spec in SPECS if spec.closed_only] == ["average"]


def test_a_name_that_is_not_in_the_table_is_answered_with_those_that_are() -> None:
    with pytest.raises(UnknownStrategy, match="majority, weighted") as refused:
        strategies.get("dice")
    assert refused.value.known == STRATEGIES
