"""A run's tables against a second implementation: every decision and every figure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.effort.table import effort_rows
from analysis.evaluation.reporting.raw_records import raw_records
from analysis.evaluation.reporting.summary import summary_rows
from analysis.evaluation.scoring.comparison import significance_rows
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.scoring.scores import OVERALL, fields
from analysis.evaluation.tests.kept import CHOICES, answer, exchange
from analysis.evaluation.tests.second.cascades import Cascade
from analysis.evaluation.tests.second.chosen import auto, isp_elicited, matched, sampled
from analysis.evaluation.tests.second.decisions import by_posterior, decisions, questions
from analysis.evaluation.tests.second.further import (
    Chosen,
    Key,
    alone,
    average,
    batch,
    debate,
    ow_l,
    router_online,
    rows_of,
)
from analysis.evaluation.tests.second.statistics import holm
from analysis.evaluation.tests.second.tables import Row, omnibus, significance, summary, takers
from schemas.ensembles.rounds import DEBATE, PREDICTION
from schemas.replies import Result

SEED = 11
WAYS = {"colours": "flexible", "sums": "numeric"}
SKILL = {"one": (0.9, 0.3), "two": (0.5, 0.8), "three": (0.6, 0.55), "four": (0.45, 0.4)}
"""How often each agent is right on either topic."""
STRATEGIES = ("majority", "weighted", "topic", "isp", "ow_i", "dawid_skene")
FURTHER = ("debate", "average", "ow_l")
CHOOSING = ("auto", "isp_elicited", "debate", "best_single")
SAMPLES = 9
IN_TABLES = ("majority", "weighted", "isp")
TOPICS = ("paint", "flags")
FLIPS = 9_999


def a_run(colours: int = 36, sums: int = 15) -> list[Exchange]:
    """Closed and open questions, asked twice; some answers cannot be read, some did not come."""
    dice, more_dice, kept = random.Random(5), random.Random(6), []
    for repetition in range(2):
        for n in range(colours + sums):
            closed, topic = n < colours, n % 2
            right = dice.randrange(4)
            said = {agent: _says(dice, right, skill[topic], closed) for agent, skill in SKILL.items()}
            came = {agent: text for agent, text in said.items() if dice.random() > 0.03}
            made = exchange(
                repetition * (colours + sums) + n,
                "ABCD"[right],
                came,
                question=f"q{n}",
                repetition=repetition,
                benchmark="colours" if closed else "sums",
                topic=TOPICS[topic],
                agents=tuple(SKILL),
            )
            more: dict[str, Any] = {"template": f"t{n % 5}"}
            if not closed:
                more |= {"kind": "number", "choices": (), "right": str(right)}
            more["result"] = _asked_more(more_dice, made, right, closed)
            kept.append(made.model_copy(update=more))
    return kept


def _asked_more(dice: random.Random, made: Exchange, right: int, closed: bool) -> Result:
    """The result with a second round, where answers differ, and how probable each held the options."""
    assert made.result is not None
    answers = made.result.answers
    second = [
        answer(each.agent, _says(dice, right, 0.6, closed), DEBATE)
        for each in answers
        if dice.random() > 0.05
    ]
    chances = [[dice.random() for _ in CHOICES] for _ in answers]
    told = tuple(
        each.model_copy(
            update={"option_probabilities": {x: c / sum(chance) for x, c in zip("ABCD", chance, strict=True)}}
        )
        if closed
        else each
        for each, chance in zip(answers, chances, strict=True)
    )
    differ = len({each.text for each in answers}) > 1
    return made.result.model_copy(
        update={"answers": told, "further_answers": tuple(second) if differ else ()}
    )


def _says(dice: random.Random, right: int, skill: float, closed: bool) -> str:
    chosen = right if dice.random() < skill else dice.randrange(4)
    if dice.random() < 0.04:
        return "?"
    return CHOICES[chosen] if closed else f"The answer is {chosen}."


@pytest.fixture(scope="module")
def kept() -> list[Exchange]:
    return a_run()


@pytest.fixture(scope="module")
def asked_further(kept: list[Exchange]) -> list[Exchange]:
    """The same run with predictions of what others say, and with samples of one agent."""
    dice, run = random.Random(7), []
    for each in kept:
        assert each.result is not None
        right, closed = "ABCD".find(each.right) if each.choices else int(each.right), bool(each.choices)
        told = [
            answer(agent, _says(dice, right, 0.4, closed), PREDICTION)
            for agent in each.agents
            if dice.random() > 0.1
        ]
        further = (*each.result.further_answers, *told)
        run.append(
            each.model_copy(update={"result": each.result.model_copy(update={"further_answers": further})})
        )
        for number in range(1, SAMPLES + 1):
            said = answer("two", _says(dice, right, 0.45, closed))
            result = each.result.model_copy(update={"answers": (said,), "further_answers": ()})
            changed = {"phase": "sample", "sample": number, "agents": ("two",), "result": result}
            run.append(each.model_copy(update={**changed, "request_id": f"{each.request_id}/{number}"}))
    return run


@pytest.fixture(scope="module")
def decided(kept: list[Exchange]) -> list[Row]:
    return [outcome._asdict() for outcome in reaggregate(kept, WAYS, STRATEGIES, SEED)]


def test_every_decision_is_made_again_from_the_raw_records(kept: list[Exchange], decided: list[Row]) -> None:
    table = {(r["contestant"], r["benchmark"], r["question_id"], r["repetition"]): r for r in decided}
    compared = 0
    for question, made, known in decisions(questions(raw_records(kept, WAYS))):
        right = {agent: said == question.right for agent, said in question.said.items()}
        for name, (chosen, chance, sure) in (made | {"dawid_skene": by_posterior(question, known)}).items():
            row = table[(name, *question.key)]
            assert row["answer"] == chosen, (name, question.key)
            assert row["expected"] == pytest.approx(chance), (name, question.key)
            assert row["confidence"] == pytest.approx(sure), (name, question.key)
            assert (row["unread"], row["missing"]) == (
                len(question.came) - len(question.said),
                len(SKILL) - len(question.came),
            )
            compared += 1
        for agent in SKILL:
            assert table[(agent, *question.key)]["expected"] == right.get(agent, False)
        assert table[("oracle", *question.key)]["expected"] == any(right.values())
        drawn = table[("random_agent", *question.key)]["expected"]
        assert drawn == pytest.approx(sum(right.values()) / len(SKILL))
    assert compared == len(kept) * len(STRATEGIES)


def test_what_asks_more_asks_one_or_learns_from_all_is_made_again_too(kept: list[Exchange]) -> None:
    outcomes = reaggregate(kept, WAYS, (*STRATEGIES, *FURTHER), SEED)
    table = {(o.contestant, o.benchmark, o.question_id, o.repetition): o for o in outcomes}
    records = raw_records(kept, WAYS)
    asked, again = questions(records), rows_of(records, "debate")
    expected: dict[tuple[str, Key], Chosen] = alone(asked, tuple(SKILL), SEED) | batch(asked)
    for question, _, known in decisions(asked):
        second = again.get(question.key, {})
        made = {"debate": debate(question, known, second), "ow_l": ow_l(question, known)}
        if question.closed:
            made["average"] = average(question, known)
        expected["router_online", question.key] = router_online(question, known, tuple(SKILL))
        for name, (drawn, chance, sure) in made.items():
            expected[name, question.key] = (drawn, chance)
            assert table[(name, *question.key)].confidence == pytest.approx(sure), (name, question.key)
        row, unread = table[("debate", *question.key)], len(question.came) - len(question.said)
        assert row.calls == len(SKILL) + len(second)
        assert row.unread == unread + sum(each["answer"] is None for each in second.values())
        silent = len(question.came) - len(second) if second else 0
        assert row.missing == len(SKILL) - len(question.came) + silent
    for (name, key), (drawn, chance) in expected.items():
        row = table[(name, *key)]
        assert row.answer == drawn, (name, key)
        assert row.expected == pytest.approx(chance), (name, key)
    closed = sum(question.closed for question in asked)
    assert len(expected) == len(asked) * 6 + closed * 5


def test_who_is_chosen_what_was_foretold_and_what_samples_say_is_made_again(
    asked_further: list[Exchange],
) -> None:
    outcomes = reaggregate(asked_further, WAYS, CHOOSING, SEED)
    table = {(o.contestant, o.benchmark, o.question_id, o.repetition): o for o in outcomes}
    records = raw_records(asked_further, WAYS)
    asked, again = questions(records), rows_of(records, "debate")
    foretold, agents = rows_of(records, "prediction"), tuple(SKILL)
    drawn: dict[Key, list[Row]] = {}
    for row in records:
        if row["purpose"] == "sample":
            drawn.setdefault((row["benchmark"], row["question_id"], row["repetition"]), []).append(row)
    counts = matched(asked, again, agents, SEED)
    assert all(1 < count <= SAMPLES for count in counts.values())
    alone = 0
    for question, _, known in decisions(asked):
        by_auto, whom = auto(question, known)
        made = {
            "auto": by_auto,
            "isp_elicited": isp_elicited(question, known, foretold.get(question.key, {})),
        }
        for name, (chosen, chance, sure) in made.items():
            told = table[(name, *question.key)]
            assert told.answer == chosen, (name, question.key, told.note)
            assert told.expected == pytest.approx(chance), (name, question.key)
            assert told.confidence == pytest.approx(sure), (name, question.key)
        alone += len(whom) == 1
        assert table[("auto", *question.key)].calls == len(whom)
        for name, count in (("best_single", len(agents)), ("self_consistency", counts[question.key[0]])):
            told = table[(name, *question.key)]
            assert (told.answer, told.expected) == pytest.approx(
                sampled(name, question, drawn[question.key], count)
            ), (name, question.key)
            assert told.calls == count
    assert len(asked) / 5 < alone < len(asked) / 2  # both ways were taken


def test_what_less_effort_spares_and_changes_is_counted_again(kept: list[Exchange]) -> None:
    closed = [each for each in kept if each.choices][:24]
    rows = {
        (row["strategy"], row["epsilon"]): row
        for row in effort_rows(read_run(closed, WAYS), ("majority", "topic"))
    }
    records = raw_records(closed, WAYS)
    for name, epsilon in (
        ("majority", None),
        ("majority", 0.05),
        ("majority", 0.1),
        ("topic", None),
        ("topic", 0.05),
    ):
        calls = waves = right = 0
        changed = set()
        for question, _, known in decisions(questions(records)):
            members = tuple(row["agent"] for row in question.rows)
            cascade = Cascade(question, known, members, name == "topic", epsilon)
            decided = cascade.run()
            full = cascade.winner(question.said)
            calls += sum(map(len, cascade.waves))
            waves += len(cascade.waves)
            right += decided == question.right
            changed |= {question.key[1]} if decided != full else set()
        row, n = rows[name, epsilon], len(closed)
        found = (row["saved_calls"], row["waves_per_question"], row["accuracy"], row["changed"])
        own = (1 - calls / (4 * n), waves / n, right / n, len(changed))
        assert found == pytest.approx(own), (name, epsilon)


def test_every_figure_of_the_tables_is_computed_again(kept: list[Exchange]) -> None:
    outcomes = reaggregate(kept, WAYS, IN_TABLES, SEED)
    decided = [outcome._asdict() for outcome in outcomes]
    for field in fields(outcomes):
        rows = [r for r in decided if field.benchmark in (OVERALL, r["benchmark"])]
        again = takers(rows)
        given = summary_rows(field, [], SEED)
        _same_rows(given, summary(again, all_together=field.benchmark == OVERALL))
        tests = significance_rows(field, SEED)
        (all_of_them,) = (row for row in tests if row["one"].startswith("("))
        assert (all_of_them["cochrans_q"], all_of_them["cochrans_q_p"]) == pytest.approx(omnibus(again))
        pairs = [row for row in tests if row.get("family")]
        _same_rows(pairs, significance(again))
        assert [row["permutation_p_holm"] for row in pairs] == pytest.approx(
            holm([row["permutation_p"] for row in pairs])
        )
        for row in pairs:
            assert row["verdict"] == _verdict(row), row
            mostly_alike = row["one_better_on"] + row["other_better_on"] < 0.2 * row["n_questions"]
            assert mostly_alike == ("Wilcoxon is close to a sign test" in row["note"]), row


def _same_rows(given: Sequence[Row], again: Sequence[Row]) -> None:
    """Sampled figures within what sampling leaves open, all others within rounding."""
    assert len(given) == len(again) > 0
    for row, own in zip(given, again, strict=True):
        assert "-0.0" not in map(repr, row.values()), row
        for name, value in own.items():
            place = (row.get("contestant") or (row["one"], row["other"]), name)
            if name == "bca":
                step = 0.5 / row["n_questions"]  # means lie on a lattice: one more question half right
                for end, told in zip(value, (row["bca_low"], row["bca_high"]), strict=True):
                    assert told == pytest.approx(end, abs=0.01 + step), place
            elif name.startswith("permutation_p") and value is not None:
                told, spread = row[name], math.sqrt(value * (1 - value) / FLIPS)
                assert abs(told - value) <= 5 * spread + 2 / FLIPS, (*place, told, value)
            elif isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-9), place
            else:
                assert row[name] == value, place


def _verdict(row: Row) -> str:
    if row["permutation_p_holm"] <= 0.05:
        return "better" if row["difference"] > 0 else "worse"
    return "tied" if row["equivalence_p_holm"] <= 0.05 else "not resolved"
