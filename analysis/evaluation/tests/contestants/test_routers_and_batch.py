"""Routers and batch forms against computations of their own: plain loops and numpy."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.batch import batch_outcomes
from analysis.evaluation.contestants.crossfit import fold_of
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.routers import ROUTER, ROUTER_ONLINE, TOPIC_BEST, router_outcomes
from analysis.evaluation.scoring.reading import Asked, read_run
from analysis.evaluation.tests.kept import CHOICES, WAYS, exchange

AGENTS = "wxyz"
SKILLS = {"w": 0.9, "x": 0.7, "y": 0.6, "z": 0.4}


def questions(count: int, seed: int = 1) -> list[Exchange]:
    """Questions on two topics; each agent is right as often as its skill says, w and z the other way round on
    the second topic."""
    dice = random.Random(seed)
    kept = []
    for n in range(count):
        topic = ("paint", "sky")[n % 2]
        right = dice.randrange(4)
        said = {}
        for agent in AGENTS:
            skill = SKILLS[{"w": "z", "z": "w"}.get(agent, agent) if topic == "sky" else agent]
            wrong = dice.choice([option for option in range(4) if option != right])
            said[agent] = CHOICES[right if dice.random() < skill else wrong]
        kept.append(exchange(n, "ABCD"[right], said, topic=topic))
    return kept


def named(outcomes: list[Outcome], name: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.contestant == name]


def test_the_router_asks_whoever_was_best_on_the_topic_in_the_other_folds() -> None:
    asked = read_run(questions(80), WAYS)
    routed = named(list(router_outcomes(asked, seed=5)), ROUTER)
    for each, outcome in zip(asked, routed, strict=True):
        kept = each.exchange
        right: Counter[str] = Counter(dict.fromkeys(AGENTS, 0))
        for other in asked:
            same_topic = other.exchange.topic == kept.topic
            if same_topic and fold_of(other.unit, 5) != fold_of(each.unit, 5):
                right.update(reply.agent for reply in other.replies if reply.right)
        best = max(sorted(right), key=lambda agent: right[agent])
        assert outcome.answer == next(r.answer for r in each.replies if r.agent == best)
        assert outcome.calls == 1 and outcome.tokens == 10


def test_the_router_never_sees_the_label_of_its_question() -> None:
    """Each question's label is turned, one by one: only whether it was right may change on that question."""
    kept = questions(24)
    before = named(list(router_outcomes(read_run(kept, WAYS), 5)), ROUTER)
    online = named(list(router_outcomes(read_run(kept, WAYS), 5)), ROUTER_ONLINE)
    for n, each in enumerate(kept):
        turned = [
            *kept[:n],
            each.model_copy(update={"right": "D" if each.right != "D" else "A"}),
            *kept[n + 1 :],
        ]
        outcomes = list(router_outcomes(read_run(turned, WAYS), 5))
        assert named(outcomes, ROUTER)[n].answer == before[n].answer
        assert [o.answer for o in named(outcomes, ROUTER_ONLINE)[: n + 1]] == [
            o.answer for o in online[: n + 1]
        ]


def test_the_online_router_goes_by_the_history_that_topic_has() -> None:
    """Shrunk accuracies written out: (c + 10 x) / (n + 10), x = (correct + 1) / (asked + 4)."""
    asked = read_run(questions(60), WAYS)
    routed = named(list(router_outcomes(asked, 5)), ROUTER_ONLINE)
    overall = {agent: [0, 0] for agent in AGENTS}
    on_topic: dict[tuple[str, str], list[int]] = {}
    for each, outcome in zip(asked, routed, strict=True):
        topic = each.exchange.topic
        trust = {}
        for agent in AGENTS:
            correct, count = overall[agent]
            c, n = on_topic.get((topic, agent), [0, 0])
            trust[agent] = (c + 10 * (correct + 4 / 4) / (count + 4)) / (n + 10)
        best = [agent for agent in AGENTS if math.isclose(trust[agent], max(trust.values()))]
        right = {reply.agent: reply.right for reply in each.replies}
        assert outcome.expected == pytest.approx(sum(right[agent] for agent in best) / len(best))
        for agent in AGENTS:
            for counted in (overall[agent], on_topic.setdefault((topic, agent), [0, 0])):
                counted[0] += right[agent]
                counted[1] += 1


def test_the_best_by_topic_that_has_seen_the_answers_is_a_bound() -> None:
    outcomes = list(router_outcomes(read_run(questions(80), WAYS), 5))
    seen, routed = (sum(o.expected for o in named(outcomes, name)) for name in (TOPIC_BEST, ROUTER))
    assert seen >= routed


def test_a_topic_of_one_fold_is_routed_to_the_best_of_the_benchmark() -> None:
    kept = [*questions(20), exchange(20, "A", dict.fromkeys(AGENTS, "red"), topic="alone")]
    (outcome,) = named(list(router_outcomes(read_run(kept, WAYS), 5)), ROUTER)[-1:]
    assert outcome.right


def said_by(asked: list[Asked]) -> NDArray[np.int64]:
    """Option by question and agent."""
    return np.array([["ABCD".index(ballot.answer or "") for ballot in each.ballots.first] for each in asked])


def test_isp_in_batch_is_the_papers_rule_with_agreement_over_all_questions() -> None:
    """S(s, i) and Adv(s) as they are written, with P symmetrised over options and 4 imagined questions."""
    asked = read_run(questions(60), WAYS)
    said, n, k = said_by(asked), len(AGENTS), 4
    agree = np.full((n, n), 1.0)
    for i, j in combinations(range(n), 2):
        both = len(said)
        agree[i, j] = agree[j, i] = ((said[:, i] == said[:, j]).sum() + 4 / k) / (both + 4)
    outcomes = named(list(batch_outcomes(asked, ["isp"])), "isp_batch")
    for row, outcome in zip(said, outcomes, strict=True):
        advantage = np.array([(row == s).sum() for s in range(k)], dtype=float)
        for s in range(k):
            for i in range(n):
                for j in set(range(n)) - {i}:
                    others = [a for a in range(k) if a != row[j]]
                    p = [agree[i, j] if a == s else (1 - agree[i, j]) / (k - 1) for a in others]
                    advantage[s] -= sum(p) / ((n - 1) * (k - 1))
        best = np.flatnonzero(np.isclose(advantage, advantage.max()))
        assert "ABCD".index(outcome.answer or "") in best


def test_dawid_skene_in_batch_is_em_over_all_questions() -> None:
    """EM in numpy, with the same prior: half of what would not be right by chance, and the rest alike."""
    asked = read_run(questions(80), WAYS)
    said, n, k = said_by(asked), len(AGENTS), 4
    prior = np.full((k, k), (1 - 1 / k) / 2 / (k - 1))
    np.fill_diagonal(prior, (1 + 1 / k) / 2)
    rates = np.repeat(prior[None], n, axis=0)
    for _ in range(300):
        logs = sum(np.log(rates[i][:, said[:, i]]) for i in range(n))
        posterior = np.exp(logs - logs.max(axis=0))
        posterior /= posterior.sum(axis=0)
        counts = np.stack(
            [np.stack([posterior[:, said[:, i] == a].sum(axis=1) for a in range(k)], 1) for i in range(n)]
        )
        rates = (counts + 4 * prior) / (counts.sum(axis=2, keepdims=True) + 4)
    expected = ["ABCD"[s] for s in np.argmax(posterior, axis=0)]
    outcomes = named(list(batch_outcomes(asked, ["dawid_skene"])), "dawid_skene_batch")
    sure = np.sort(posterior, axis=0)[-1] - np.sort(posterior, axis=0)[-2] > 1e-4
    assert sure.sum() > 60
    assert [o.answer for o, clear in zip(outcomes, sure, strict=True) if clear] == [
        letter for letter, clear in zip(expected, sure, strict=True) if clear
    ]


def test_batch_forms_do_not_depend_on_the_order_of_questions() -> None:
    kept = questions(30)
    turned = [each.model_copy(update={"position": 100 - n}) for n, each in enumerate(kept)]
    names = ["isp", "ow_l", "ow_i", "dawid_skene"]
    one, other = (
        {(o.contestant, o.question_id): o.expected for o in batch_outcomes(read_run(k, WAYS), names)}
        for k in (kept, turned)
    )
    assert one == other


def test_only_what_learns_from_agreement_has_a_batch_form() -> None:
    asked = read_run(questions(4), WAYS)
    assert {o.contestant for o in batch_outcomes(asked, ["majority", "topic", "isp"])} == {"isp_batch"}
