"""Kept answers decided again: with what was known before each question, and beside honest baselines."""

from __future__ import annotations

import random

import pytest

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.baselines import baseline_outcomes
from analysis.evaluation.contestants.crossfit import FOLDS, best_agents, fold_of
from analysis.evaluation.contestants.matched import samples_for_debate, samples_wanted
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.replay import strategy_outcomes
from analysis.evaluation.options import build_options
from analysis.evaluation.scoring.reading import Asked, read_run
from analysis.evaluation.tests.kept import CHOICES, MODEL_S, TOKENS, WAYS, answer, exchange
from schemas.ensembles.rounds import DEBATE, PREDICTION
from schemas.errors import ErrorBody

EXPERT = {"expert": "red", "one": "green", "other": "green"}


def read(*exchanges: Exchange) -> list[Asked]:
    return read_run(exchanges, WAYS)


def by_name(outcomes: list[Outcome], name: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.contestant == name]


def test_weights_are_predicted_with_first_and_updated_after() -> None:
    asked = read(*(exchange(n, "A", EXPERT) for n in range(8)))
    weighted = by_name(strategy_outcomes(asked, ["majority", "weighted"]), "weighted")
    assert [outcome.right for outcome in weighted[:1]] == [False]  # nothing was known: as the majority
    assert all(outcome.right for outcome in weighted[1:])


def test_what_a_repetition_has_shown_is_not_known_in_another() -> None:
    kept = [
        exchange(10 * repetition + n, "A", EXPERT, question=f"q{n}", repetition=repetition)
        for repetition in range(2)
        for n in range(3)
    ]
    weighted = strategy_outcomes(read(*kept), ["weighted"])
    assert [o.right for o in weighted if o.question_id == "q0"] == [False, False]


def test_decisions_do_not_depend_on_the_order_in_which_answers_came_back() -> None:
    dice = random.Random(1)
    kept = [
        exchange(n, dice.choice("ABCD"), {agent: dice.choice(CHOICES) for agent in "abcd"}) for n in range(40)
    ]
    names = ["majority", "weighted", "isp", "topic", "ow_l", "ow_i", "dawid_skene"]
    expected = strategy_outcomes(read(*kept), names)
    dice.shuffle(kept)
    assert strategy_outcomes(read(*kept), names) == expected


def test_an_answer_that_cannot_be_read_or_did_not_come_abstains_is_counted_and_never_right() -> None:
    (asked,) = read(exchange(0, "A", {"one": "red", "two": "no idea"}, agents=("one", "two", "three")))
    (outcome,) = strategy_outcomes([asked], ["majority"])
    assert (outcome.answer, outcome.unread, outcome.missing) == ("A", 1, 1)
    alone = {o.contestant: o for o in baseline_outcomes([asked], 0, []) if o.group == "agent"}
    assert [(o.right, o.unread, o.missing) for o in alone.values()] == [
        (True, 0, 0),
        (False, 1, 0),
        (False, 0, 1),
    ]


def test_a_request_that_failed_is_a_question_on_which_all_abstain() -> None:
    late = ErrorBody(code="deadline_exceeded", message="too late")
    (asked,) = read(exchange(0, "A", {}, agents=("one", "two"), failed=late))
    (outcome,) = strategy_outcomes([asked], ["majority"])
    assert (outcome.answer, outcome.right, outcome.missing) == (None, False, 2)
    assert {reply.why_not for reply in asked.replies} == {"deadline_exceeded"}


def test_a_debate_pays_for_both_rounds_and_others_only_for_the_first() -> None:
    second = [answer(agent, "red", DEBATE, 0.25, load_s=8.0) for agent in EXPERT]  # loading does not count
    foretold = [answer(agent, "green", PREDICTION) for agent in EXPERT]
    (asked,) = read(exchange(0, "A", EXPERT, further=[*second, *foretold]))
    majority, debate, elicited = strategy_outcomes([asked], ["majority", "debate", "isp_elicited"])
    assert (majority.calls, majority.tokens, majority.latency_s) == (3, 3 * TOKENS, MODEL_S)
    assert (debate.calls, debate.tokens, debate.latency_s) == (6, 6 * TOKENS, MODEL_S + 0.25)
    assert (elicited.calls, elicited.tokens) == (6, 6 * TOKENS)
    assert (majority.right, debate.right) == (False, True)


def test_strict_reading_hears_letters_only() -> None:
    kept = exchange(0, "A", {"one": "A", "two": "red"})
    (flexible,), (strict,) = (read_run([kept], {"colours": way}) for way in ("flexible", "strict"))
    assert [reply.answer for reply in flexible.replies] == ["A", "A"]
    assert [reply.answer for reply in strict.replies] == ["A", None]


def test_the_best_agent_is_picked_on_other_questions_than_those_it_is_scored_on() -> None:
    """Each agent is right in one fold only: whoever picked on the scored questions would always be right."""
    kept = []
    for n in range(40):
        fold = fold_of(("colours", f"q{n}"), seed=3)
        kept.append(exchange(n, "A", {f"agent{i}": "red" if i == fold else "blue" for i in range(FOLDS)}))
    asked = read(*kept)
    best = best_agents(asked, seed=3)
    assert all(best[each.unit] != f"agent{fold_of(each.unit, 3)}" for each in asked)
    assert not any(o.right for o in by_name(baseline_outcomes(asked, 3, []), "best_agent"))


def test_an_oracle_is_right_where_any_agent_is_and_each_agent_stands_alone() -> None:
    asked = read(exchange(0, "A", EXPERT), exchange(1, "D", EXPERT))
    outcomes = baseline_outcomes(asked, 0, [])
    assert [o.right for o in by_name(outcomes, "oracle")] == [True, False]
    assert [o.right for o in by_name(outcomes, "expert")] == [True, False]
    assert all(o.answer in {"A", "B"} for o in by_name(outcomes, "random_agent"))
    assert all(o.answer in set("ABCD") and o.calls == 0 for o in by_name(outcomes, "random"))


def test_samples_of_the_best_are_as_many_as_the_ensembles_calls_or_as_debates_tokens_pay_for() -> None:
    second = [answer(agent, "red", DEBATE) for agent in EXPERT for _ in range(3)]
    main = exchange(0, "A", EXPERT, further=second)
    said = ["red", "red", "blue", "blue", "blue", *["red"] * 7]
    samples = [exchange(0, "A", {"expert": text}, sample=n) for n, text in enumerate(said, start=1)]
    asked = read(main, *samples)
    best = {("colours", "q0"): "expert"}
    assert samples_for_debate(asked, best) == 12
    debating, silent, fixed = (
        build_options(said) for said in ({}, {"strategies": ("majority",)}, {"self_consistency": 5})
    )
    assert [samples_wanted(asked, best, options)["colours"] for options in (debating, silent, fixed)] == [
        12,
        3,
        5,
    ]
    outcomes = baseline_outcomes(asked, 0, ["debate"])
    (single,), (consistent,) = by_name(outcomes, "best_single"), by_name(outcomes, "self_consistency")
    assert (single.calls, single.right, single.tokens) == (3, True, 3 * TOKENS)
    assert (consistent.calls, consistent.tokens) == (12, 12 * TOKENS)


def test_without_samples_there_is_no_row_that_pretends_to_have_them() -> None:
    names = {o.contestant for o in baseline_outcomes(read(exchange(0, "A", EXPERT)), 0, ["debate"])}
    assert names == {"expert", "one", "other", "best_agent", "random_agent", "random", "oracle"}


@pytest.mark.parametrize("seed", [0, 1])
def test_lots_fall_alike_for_the_same_seed(seed: int) -> None:
    asked = read(*(exchange(n, "A", EXPERT) for n in range(30)))
    assert baseline_outcomes(asked, seed, []) == baseline_outcomes(asked, seed, [])
