"""Accuracy histories and how an answer becomes part of one."""

from __future__ import annotations

import pytest

from services.aggregator.history import NO_HISTORY, AgentHistory, judge


def test_a_history_counts_what_was_asked_and_what_was_right() -> None:
    history = NO_HISTORY.after(right=True).after(right=False).after(right=True)
    assert (history.correct, history.asked) == (2, 3)
    assert (NO_HISTORY.correct, NO_HISTORY.asked) == (0, 0)


def test_a_history_comes_back_from_its_stored_form() -> None:
    history = AgentHistory(correct=9, asked=10)
    assert history.to_bytes() == b'{"correct":9,"asked":10}'
    assert AgentHistory.from_bytes(history.to_bytes()) == history


@pytest.mark.parametrize(
    "data", [b"", b"null", b"{", b'{"correct":2,"asked":1}', b'{"correct":-1}', b'{"right":1}', b"\xff"]
)
def test_what_is_not_a_history_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        AgentHistory.from_bytes(data)


def test_agents_are_judged_by_equality_and_who_abstained_is_not_judged() -> None:
    answers = {"alto": "18", "bass": "17", "tenor": None, "soprano": "18"}
    assert judge(answers, "18") == (("alto", "soprano"), ("bass",))
    assert judge(answers, "20") == ((), ("alto", "bass", "soprano"))
