"""Accuracy histories and how an answer becomes part of one."""

from __future__ import annotations

import pytest

from services.aggregator.scores.history import NO_HISTORY, AgentHistory, Unlabelled, judge
from services.aggregator.scores.score_codec import (
    history_from_bytes,
    unlabelled_from_bytes,
    with_answer,
    with_update,
)


def test_a_history_counts_what_was_asked_and_what_was_right() -> None:
    history = NO_HISTORY.after(right=True).after(right=False).after(right=True)
    assert (history.correct, history.asked) == (2, 3)
    assert (NO_HISTORY.correct, NO_HISTORY.asked) == (0, 0)


def test_a_history_comes_back_from_its_stored_form() -> None:
    history = AgentHistory(correct=9, asked=10)
    stored = with_answer(b'{"correct":8,"asked":9}', "r1", right=True)
    assert history_from_bytes(stored) == history


@pytest.mark.parametrize(
    "data", [b"", b"null", b"{", b'{"correct":2,"asked":1}', b'{"correct":-1}', b'{"right":1}', b"\xff"]
)
def test_what_is_not_a_history_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        history_from_bytes(data)


def test_an_update_that_is_in_a_value_already_does_not_change_it() -> None:
    once = with_answer(None, "r1", right=True)
    assert with_answer(once, "r1", right=True) == once
    assert history_from_bytes(with_answer(once, "r2", right=False)) == AgentHistory(correct=1, asked=2)
    update = Unlabelled(isp={"alto": AgentHistory(correct=1, asked=1)})
    known = with_update(None, "l1", update)
    assert with_update(known, "l1", update) == known
    assert unlabelled_from_bytes(with_update(known, "l2", update)).isp["alto"].asked == 2


def test_a_value_does_not_grow_with_the_updates_that_it_knows() -> None:
    value = None
    for number in range(1_000):
        value = with_answer(value, f"r{number}", right=True)
    assert value is not None and len(value) < 2_500
    assert with_answer(value, "r999", right=True) == value


def test_agents_are_judged_by_equality_and_who_abstained_is_not_judged() -> None:
    answers = {"alto": "18", "bass": "17", "tenor": None, "soprano": "18"}
    assert judge(answers, "18") == (("alto", "soprano"), ("bass",))
    assert judge(answers, "20") == ((), ("alto", "bass", "soprano"))
