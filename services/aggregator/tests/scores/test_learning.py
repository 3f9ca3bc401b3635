"""What a question teaches: predict first, update after; with right answers and without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.decide import Question
from services.aggregator.scores.agreement import Agreement
from services.aggregator.scores.history import AgentHistory, History, Unlabelled
from services.aggregator.scores.learning import learn_answers, learn_label, unlabelled_update
from services.aggregator.scores.score_codec import scores_reply, unlabelled_from_bytes, unlabelled_to_bytes
from services.aggregator.strategies import Ballot

QUESTION = Question("q", 3, "capitals")
letters = st.lists(st.one_of(st.none(), st.sampled_from("ABC")), min_size=3, max_size=3)


def cast(*answers: str | None) -> list[Ballot]:
    return [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(answers)]


def taught(*questions: list[str | None]) -> History:
    history = History()
    for answers in questions:
        learn_answers(history, cast(*answers), QUESTION)
    return history


def test_answers_teach_who_agrees_with_whom_and_with_isp() -> None:
    known = taught(["A", "A", "B"], ["C", "C", None]).closed[3]
    assert known.agreement[frozenset(("agent-0", "agent-1"))] == Agreement(agreed=2, both=2)
    assert known.agreement[frozenset(("agent-0", "agent-2"))] == Agreement(agreed=0, both=1)
    assert known.isp["agent-2"] == AgentHistory(correct=0, asked=1)
    assert known.isp["agent-0"] == AgentHistory(correct=2, asked=2)
    assert sum(known.confusions["agent-0"]) == pytest.approx(2)


@pytest.mark.parametrize("answers", [["A", None, None], [None, None, None], ["18", "18", "17"]])
def test_an_agent_alone_and_answers_that_are_no_options_teach_nothing(answers: list[str | None]) -> None:
    assert unlabelled_update(History(), cast(*answers), QUESTION) == Unlabelled()


def test_open_questions_teach_only_with_their_right_answer() -> None:
    history = History()
    learn_answers(history, cast("18", "18", "17"), Question("q"))
    assert history == History()
    learn_label(history, cast("18", "18", None), "18", "sums")
    assert history.agents == dict.fromkeys(("agent-0", "agent-1"), AgentHistory(correct=1, asked=1))
    assert history.topics == {"sums": history.agents}


def test_a_label_counts_overall_and_on_its_topic() -> None:
    history = History()
    learn_label(history, cast("A", "B"), "A", "capitals")
    learn_label(history, cast("A", "B"), "B")
    assert history.agents["agent-0"] == AgentHistory(correct=1, asked=2)
    assert history.topics["capitals"]["agent-1"] == AgentHistory(correct=0, asked=1)


@given(st.lists(letters, max_size=6), st.lists(letters, max_size=6))
def test_updates_that_were_learnt_apart_add_up(
    one: list[list[str | None]], other: list[list[str | None]]
) -> None:
    together = taught(*one).closed.get(3, Unlabelled())
    together.add(taught(*other).closed.get(3, Unlabelled()))
    counted = taught(*one, *other).closed.get(3, Unlabelled())
    assert together.agreement == counted.agreement
    assert {agent: sum(counts) for agent, counts in together.confusions.items()} == pytest.approx(
        {agent: sum(counts) for agent, counts in counted.confusions.items()}
    )


@given(st.lists(letters, max_size=6))
def test_updates_come_back_from_their_stored_form(questions: list[list[str | None]]) -> None:
    known = taught(*questions).closed.get(3, Unlabelled())
    found = unlabelled_from_bytes(unlabelled_to_bytes(known))
    assert (found.agreement, found.isp) == (known.agreement, known.isp)
    for agent, counts in known.confusions.items():
        assert found.confusions[agent] == pytest.approx(counts, abs=1e-4)


@pytest.mark.parametrize("data", [b"", b"{", b'{"agents": 3}', b'{"lessons": []}'])
def test_what_is_no_update_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unlabelled_from_bytes(data)


def test_all_that_is_known_can_be_told() -> None:
    history = taught(["A", "A", "B"])
    learn_label(history, cast("A", "B"), "A", "capitals")
    reply = scores_reply(history)
    assert [(score.agent, score.topic, score.correct) for score in reply.accuracy] == [
        ("agent-0", None, 1),
        ("agent-1", None, 0),
        ("agent-0", "capitals", 1),
        ("agent-1", "capitals", 0),
    ]
    assert [(pair.one, pair.other, pair.options, pair.agreed) for pair in reply.agreement] == [
        ("agent-0", "agent-1", 3, 1),
        ("agent-0", "agent-2", 3, 0),
        ("agent-1", "agent-2", 3, 0),
    ]
    assert [len(score.confusion) for score in reply.unlabelled] == [3, 3, 3]
