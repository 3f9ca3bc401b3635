"""What is counted and scored: every answer that a contestant is made from, and no luck of lots."""

from __future__ import annotations

import pytest

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.baselines import baseline_outcomes
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.contestants.replay import strategy_outcomes
from analysis.evaluation.reporting.summary import summary_rows
from analysis.evaluation.scoring.comparison import significance_rows, verdict
from analysis.evaluation.scoring.information import learns_from, repeated_texts
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.scoring.scores import field
from analysis.evaluation.tests.kept import CHOICES, WAYS, answer, exchange
from analysis.statistics.significance import mcnemar_of_counts
from schemas.ensembles.rounds import DEBATE, PREDICTION
from schemas.errors import ErrorBody
from schemas.replies import Decision

SPLIT = {"a": "red", "b": "red", "c": "green", "d": "green"}


def decided(kept: list[Exchange], *names: str) -> list[Outcome]:
    return strategy_outcomes(read_run(kept, WAYS), names)


def row_of(kept: list[Exchange], one: str, other: str, *names: str) -> dict[str, object]:
    outcomes = reaggregate(kept, WAYS, names, 0)
    rows = significance_rows(field("colours", outcomes), seed=1)
    return next(row for row in rows if (row["one"], row["other"]) == (one, other))


def test_second_answers_that_cannot_be_read_are_counted_for_the_debate_alone() -> None:
    second = [answer("a", "red", DEBATE), answer("b", "?", DEBATE), answer("c", "!", DEBATE)]
    first = {"a": "red", "b": "green", "c": "?", "d": "blue"}
    majority, debate = decided([exchange(0, "A", first, further=second)], "majority", "debate")
    assert (majority.unread, majority.missing) == (1, 0)
    assert (debate.unread, debate.missing) == (3, 1)  # d was asked again and never answered


def test_second_answers_that_are_errors_are_missing_and_predictions_that_say_nothing_unread() -> None:
    broken = answer("a", "", DEBATE).model_copy(
        update={"error": ErrorBody(code="internal", message="it broke")}
    )
    foretold = [answer("a", "red", PREDICTION), answer("b", "?", PREDICTION)]
    first = {"a": "red", "b": "green"}
    kept = exchange(0, "A", first, further=[broken, answer("b", "red", DEBATE), *foretold])
    debate, elicited = decided([kept], "debate", "isp_elicited")
    assert (debate.unread, debate.missing) == (0, 1)
    assert (elicited.unread, elicited.missing) == (1, 0)


def test_what_falls_by_lot_is_scored_with_its_expected_value() -> None:
    kept = [exchange(n, "A", SPLIT) for n in range(40)]
    outcomes = decided(kept, "majority")
    assert {o.right for o in outcomes} == {True, False}
    assert {o.expected for o in outcomes} == {0.5}
    (row,) = (
        row for row in summary_rows(field("colours", outcomes), [], 0) if row["contestant"] == "majority"
    )
    assert row["accuracy"] == 0.5 and row["accuracy_of_the_lots"] != 0.5
    threefold = {"a": "red", "b": "green", "c": "blue"}
    assert [o.expected for o in decided([exchange(0, "B", threefold)], "majority")] == [pytest.approx(1 / 3)]
    assert [o.expected for o in decided([exchange(0, "D", threefold)], "majority")] == [0.0]


def test_luck_is_scored_with_what_can_be_expected_of_it() -> None:
    asked = read_run([exchange(0, "A", {"a": "red", "b": "red", "c": "green"})], WAYS)
    by_name = {o.contestant: o.expected for o in baseline_outcomes(asked, 0, [])}
    assert by_name["random"] == 1 / len(CHOICES)
    assert by_name["random_agent"] == pytest.approx(2 / 3)


def two_repetitions() -> list[Exchange]:
    """`a` is always right; the majority is with it in the first repetition, and against it in the second."""
    agreeing, opposed = {"a": "red", "b": "red", "c": "red"}, {"a": "red", "b": "blue", "c": "blue"}
    return [
        exchange(30 * r + n, "A", opposed if r else agreeing, question=f"q{n}", repetition=r)
        for n in range(30)
        for r in range(2)
    ]


def test_the_primary_test_sees_every_repetition() -> None:
    row = row_of(two_repetitions(), "majority", "best_agent", "majority")
    assert row["mcnemar_p"] == 1.0  # the first repetition, in which they never differ
    assert row["difference"] == -0.5 and row["other_better_on"] == 30
    assert row["verdict"] == "worse"


def test_with_one_repetition_and_no_ties_the_primary_test_is_exact_mcnemar() -> None:
    """Nine questions that only the majority has right, two that only the agent has: 11 in all, tried
    exactly.
    """
    kept = [exchange(n, "A", {"a": "blue", "b": "red", "c": "red"}) for n in range(9)]
    kept += [exchange(n, "A", {"a": "red", "b": "blue", "c": "blue"}) for n in range(9, 11)]
    outcomes = [o for o in reaggregate(kept, WAYS, ["majority"], 0) if o.contestant in ("majority", "a")]
    named = [o._replace(group="strategy") for o in outcomes]
    rows = significance_rows(field("colours", named), seed=1)
    (row,) = (row for row in rows if {row["one"], row["other"]} == {"majority", "a"})
    assert row["permutation_p"] == pytest.approx(mcnemar_of_counts(9, 2, 11).p)
    assert row["mcnemar_p"] == pytest.approx(mcnemar_of_counts(9, 2, 11).p)


def test_a_strategy_without_what_it_needs_is_named_as_the_majority_and_adds_no_pairs() -> None:
    kept = [exchange(n, "ABCD"[n % 4], SPLIT) for n in range(12)]
    outcomes = reaggregate(kept, WAYS, ["majority", "isp_elicited", "debate", "weighted"], 0)
    scored = field("colours", outcomes)
    same = {row["contestant"]: row["same_as"] for row in summary_rows(scored, [], 0)}
    assert (same["isp_elicited"], same["debate"], same["majority"]) == ("majority", "majority", None)
    rows = significance_rows(scored, seed=1)
    named = [(row["one"], row["other"], row["verdict"]) for row in rows if "isp_elicited" in row.values()]
    assert named == [("isp_elicited", "majority", "the same")]
    families = {row["family"] for row in rows if "family" in row}
    assert families == {len([row for row in rows if "family" in row])}


def test_a_fallen_back_strategy_is_named_even_where_the_majority_does_not_take_part() -> None:
    kept = [exchange(n, "A", SPLIT) for n in range(6)]
    rows = summary_rows(field("colours", reaggregate(kept, WAYS, ["isp_elicited"], 0)), [], 0)
    assert rows[0]["same_as"] == "majority" and rows[0]["fell_back"] == 6


@pytest.mark.parametrize(
    ("difference", "p", "equivalent", "said"),
    [
        (0.2, 0.01, 1.0, "better"),
        (-0.2, 0.01, 1.0, "worse"),
        (0.0, 0.9, 0.2, "not resolved"),
        (0.0, 0.9, 0.01, "tied"),
        (0.02, 0.04, 0.01, "better"),
    ],
)
def test_only_what_was_shown_to_be_as_good_is_tied(
    difference: float, p: float, equivalent: float, said: str
) -> None:
    assert verdict(difference, p, equivalent) == said


def test_few_questions_without_a_difference_are_not_resolved_and_many_are_tied() -> None:
    said = {"a": "red", "b": "red", "c": "green"}
    for n, expected in ((20, "not resolved"), (200, "tied")):
        kept = [exchange(k, "D", said) for k in range(n)]  # nobody is ever right: differently wrong
        kept += [exchange(n, "D", {"a": "blue", "b": "green", "c": "green"})]
        assert row_of(kept, "majority", "best_agent", "majority")["verdict"] == expected


def test_what_topics_show_is_told_beside_what_questions_show() -> None:
    """Thirty questions on three topics: 30 witnesses, or 3, of which two signs of eight are as uneven."""
    kept = [exchange(n, "A", {"a": "red", "b": "blue", "c": "blue"}, topic=f"t{n % 3}") for n in range(30)]
    row = row_of(kept, "majority", "best_agent", "majority")
    assert row["permutation_p"] == pytest.approx(1e-4) and row["permutation_p_by_topic"] == 0.25


def test_repeated_texts_are_found_letter_by_letter() -> None:
    kept = [
        exchange(2 * n + r, "A", {"a": "red", "b": f"green {r}"}, question=f"q{n}", repetition=r)
        for n in range(4)
        for r in range(2)
    ]
    assert repeated_texts(kept) == 0.5
    assert repeated_texts([each for each in kept if each.repetition == 0]) is None


def test_macro_accuracy_counts_a_small_topic_as_much_as_a_large_one() -> None:
    kept = [exchange(n, "A", {"a": "red"}, topic="large") for n in range(9)]
    kept.append(exchange(9, "B", {"a": "red"}, topic="small"))
    rows = summary_rows(field("colours", reaggregate(kept, WAYS, ["majority"], 0)), [], 0)
    assert (rows[0]["accuracy"], rows[0]["macro_accuracy"]) == (0.9, 0.5)


def test_a_runs_processors_are_no_strategys_own() -> None:
    rows = summary_rows(
        field("colours", reaggregate([exchange(0, "A", SPLIT)], WAYS, ["majority"], 0)), [], 0
    )
    assert rows[0]["cpu_percent"] is None


@pytest.mark.parametrize(
    ("name", "learns"),
    [
        ("majority", "nothing"),
        ("topic", "labels before"),
        ("ow_l", "agreement"),
        ("ow_l_batch", "agreement of all"),
        ("best_agent", "labels of other folds"),
        ("oracle", "the answer"),
    ],
)
def test_it_is_told_what_each_learns_from(name: str, learns: str) -> None:
    assert learns_from(name, "strategy") == learns


def test_an_agent_that_has_a_strategys_name_learns_nothing() -> None:
    assert learns_from("topic", "agent") == "nothing"


def test_where_the_mesh_itself_decided_otherwise_is_told() -> None:
    """A tie on every question: the lot falls here by the question, there by the request."""
    kept = [exchange(n, "A", SPLIT) for n in range(8)]
    plain = decided(kept, "majority")
    assert {(each.mesh_answer, each.mesh_agrees) for each in plain} == {(None, None)}
    of_mesh = Decision(
        strategy="majority", answer="A", share=0.5, margin=0.0, tie=True, votes=(), scores={"A": 2, "B": 2}
    )
    told = decided([with_decision(each, of_mesh) for each in kept], "majority")
    assert [each.mesh_agrees for each in told] == [each.answer == "A" for each in plain]
    (row,) = summary_rows(field("colours", told), (), 1, None)
    assert row["mesh_otherwise"] == sum(each.answer != "A" for each in plain) > 0


def with_decision(kept: Exchange, decision: Decision) -> Exchange:
    assert kept.result is not None
    return kept.model_copy(update={"result": kept.result.model_copy(update={"decisions": (decision,)})})
