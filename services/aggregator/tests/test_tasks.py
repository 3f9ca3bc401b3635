"""What agents are asked in each round, from values alone."""

from __future__ import annotations

from infra.testing.mesh import gather
from schemas.commands import ChatMessage
from schemas.ensembles.rounds import DEBATE, PREDICTION, QUESTION, SAMPLES_FROM, purpose_of
from schemas.requests.sampling import Sampling
from services.aggregator.tasks import OPTION_LOGPROBS, debate_tasks, opening_tasks, said_next, sample_of
from services.aggregator.tests.ensemble import answer

TWO = ("alpha", "beta")


def test_only_the_question_is_asked_where_no_strategy_needs_more() -> None:
    tasks = opening_tasks(gather("r", TWO, strategies=("majority", "debate", "concat")), "alpha")
    assert [(task.round, task.agent) for task in tasks] == [(QUESTION, "alpha"), (QUESTION, "beta")]
    assert tasks[0].sampling.logprobs == 0


def test_the_budget_of_the_best_agent_is_that_of_the_ensemble_unless_it_is_said() -> None:
    by_default = opening_tasks(gather("r", TWO, strategies=("best_single",)), "beta")
    five = opening_tasks(gather("r", TWO, strategies=("best_single",), samples=5), "beta")
    one = opening_tasks(gather("r", TWO, strategies=("best_single",), samples=1), "beta")
    assert [(task.round, task.agent) for task in by_default[2:]] == [(SAMPLES_FROM, "beta")]
    assert [task.round for task in five[2:]] == [SAMPLES_FROM + i for i in range(4)]
    assert len(one) == 2
    assert len({task.task_id for task in five}) == len(five)


def test_every_round_has_a_purpose() -> None:
    assert [
        purpose_of(round_) for round_ in (QUESTION, DEBATE, PREDICTION, SAMPLES_FROM, SAMPLES_FROM + 9)
    ] == [
        "question",
        "debate",
        "prediction",
        "sample",
        "sample",
    ]


def test_a_sample_keeps_the_temperature_that_was_asked_for_and_seeds_go_round() -> None:
    sampling = sample_of(Sampling(temperature=1.2, seed=2**32 - 1, logprobs=3), 1)
    assert (sampling.temperature, sampling.seed, sampling.logprobs) == (1.2, 0, 0)


def test_as_many_alternatives_are_asked_for_as_option_probabilities_need() -> None:
    (task, _) = opening_tasks(gather("r", TWO, strategies=("average",), choices=("x", "y")), None)
    assert task.sampling.logprobs == OPTION_LOGPROBS


def test_turns_alternate_whatever_is_added() -> None:
    said = (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Why?"))
    assert [message.role for message in said_next(said, "assistant", "So.")] == [
        "system",
        "user",
        "assistant",
    ]
    (_, question) = said_next(said, "user", "And why not?")
    assert question.content == "Why?\n\nAnd why not?"


def test_an_agent_that_said_nothing_is_asked_again_without_words_in_its_mouth() -> None:
    given = {"alpha": answer("r", "alpha", "  "), "beta": answer("r", "beta", "42")}
    first, second = debate_tasks(gather("r", TWO, strategies=("debate",)), given)
    assert [message.role for message in first.messages] == ["user"]
    assert first.messages[0].content.endswith("What is the tallest animal?")
    assert "42" in first.messages[0].content
    assert [message.role for message in second.messages] == ["user", "assistant", "user"]
    assert "Answer 1" not in second.messages[-1].content
