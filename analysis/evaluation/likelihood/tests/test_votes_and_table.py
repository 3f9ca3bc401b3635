"""Scores of single texts: which option an agent votes for, and the published measures, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.benchmarks.benchmark import LIKELIHOOD, PER_CHARACTER
from analysis.evaluation.benchmarks.question import Statement, closed
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.likelihood.asked import scored_of
from analysis.evaluation.likelihood.table import likelihood_rows
from analysis.evaluation.likelihood.texts import Continuation, Scored, continuations
from analysis.evaluation.likelihood.votes import one_for_each_question
from analysis.evaluation.tests.kept import CHOICES, answer
from analysis.evaluation.tests.kept import exchange as kept_exchange
from schemas.errors import ErrorBody, GenerationFailed
from schemas.replies import Result

LOST = ErrorBody(code="generation_failed", message="no")


def scored(agent: str, place: int, log_likelihood: float | None, true: bool | None = None) -> Exchange:
    """One option that an agent scored; None if that failed."""
    text = CHOICES[place] if place < len(CHOICES) else f"statement {place}"
    choice = place if place < len(CHOICES) else None
    base = kept_exchange(0, "B", {agent: ""}, question="q0")
    came = Result(
        request_id="r", fingerprint="f", topology="single", answers=(answer(agent, ""),), accepted_at_s=0,
        completed_at_s=1,
    )  # fmt: skip
    of_text = None if log_likelihood is None else Scored(
        text=text, length=len(text), choice=choice, true=true, logprobs=(log_likelihood,), greedy=False
    )  # fmt: skip
    return base.model_copy(
        update={
            "phase": "score", "sample": place, "scored": of_text,
            "result": None if of_text is None else came, "error": LOST if of_text is None else None,
        }
    )  # fmt: skip


def test_an_agent_votes_for_its_likeliest_option_by_the_whole_or_by_the_character() -> None:
    """red, green, blue, grey: green is likelier by the character, red as a whole."""
    kept = [scored("one", place, value) for place, value in enumerate((-3.0, -4.0, -9.0, -9.0))]
    for way, letter in ((LIKELIHOOD, "A"), (PER_CHARACTER, "B")):
        (question,) = one_for_each_question(kept, {"colours": way})
        (said,) = question.answers
        assert (question.phase, said.text) == ("fan_out", letter)
        probabilities = said.option_probabilities or {}
        assert probabilities["A"] / probabilities["B"] == pytest.approx(math.e)
        assert sum(probabilities.values()) == pytest.approx(1)
        outcomes = reaggregate([question], {"colours": way}, ("majority", "average"), 1)
        decided = {each.contestant: each for each in outcomes}
        assert decided["one"].right is (letter == "B")
        assert decided["average"].answer == "A"  # by the probabilities, whichever way is voted


def test_a_score_that_did_not_come_makes_no_vote_and_earns_nothing() -> None:
    kept = [scored("one", 0, -3.0), scored("one", 1, None), scored("one", 2, -9.0), scored("one", 3, -9.0)]
    (question,) = one_for_each_question(kept, {"colours": LIKELIHOOD})
    assert [said.error.code for said in question.answers if said.error] == ["generation_failed"]
    (row,) = likelihood_rows(kept)
    assert (row["acc"], row["acc_norm"], row["incomplete"], row["mc2"]) == (0, 0, 1, None)


def test_the_measures_are_those_that_are_published() -> None:
    """mc2: the true statements' part of the likelihood of all statements."""
    values = (-3.0, -4.0, -9.0, -9.0, -2.0, -5.0)
    true = (None, True, False, False, True, False)
    kept = [scored("one", n, value, true[n]) for n, value in enumerate(values)]
    (row,) = likelihood_rows(kept)
    of_true = math.exp(-4) + math.exp(-2)
    of_false = 2 * math.exp(-9) + math.exp(-5)
    assert row["mc2"] == pytest.approx(of_true / (of_true + of_false))
    assert (row["acc"], row["acc_norm"], row["texts"]) == (0, 1, 6)
    assert row["log_likelihood_of_right"] == -4.0


def test_each_text_is_scored_once_and_letters_only_where_options_are_shown() -> None:
    asked = closed(0, "Q?", ["yes", "no"], 0, "law")
    assert continuations(asked, by_letter=True) == (Continuation("A", 0), Continuation("B", 1))
    statements = (Statement("yes", True), Statement("sure", True))
    stated = continuations(replace(asked, statements=statements), by_letter=False)
    assert stated == (
        Continuation("yes", 0, True),
        Continuation("no", 1, None),
        Continuation("sure", None, True),
    )


def test_a_text_without_log_probabilities_is_an_error() -> None:
    with pytest.raises(GenerationFailed, match="no log probabilities came for the text 'red'"):
        scored_of(Continuation("red", 0), ())
    entry = {"token_id": 5, "logprob": -0.5, "top": [{"token_id": 5, "logprob": -0.5}]}
    other = {"token_id": 6, "logprob": -1.5, "top": [{"token_id": 5, "logprob": -0.5}]}
    assert scored_of(Continuation("red", 0), [entry]).greedy
    both = scored_of(Continuation("red", 0), [entry, other])
    assert (both.greedy, both.log_likelihood) == (False, -2.0)
