"""What strategies and baselines decide, from the raw records of a run.

A decision is (answer, chance to be right over lots, confidence). Closed questions have K options, open ones
one more than there are answers. Each repetition of each benchmark learns from nothing; a question is decided
with what those before it have taught.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

Row = dict[str, Any]
Decided = tuple[str | None, float, float | None]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass
class Known:
    """What was learnt on one repetition of one benchmark."""

    right: Counter[Any] = field(default_factory=Counter)
    judged: Counter[Any] = field(default_factory=Counter)
    agreed: Counter[Any] = field(default_factory=Counter)
    met: Counter[Any] = field(default_factory=Counter)
    as_isp: Counter[Any] = field(default_factory=Counter)
    with_isp: Counter[Any] = field(default_factory=Counter)
    said_where: defaultdict[Any, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class Question:
    """One question of one repetition, and who said what: None is what came and could not be read."""

    rows: list[Row]

    def __post_init__(self) -> None:
        first = self.rows[0]
        self.key = (first["benchmark"], first["question_id"], first["repetition"])
        self.topic, self.right = first["topic"], first["right_answer"]
        self.lots = f"{' '.join(map(str, self.key))} {first['prompt_sha256']}"
        self.closed = first["kind"] == "choice"
        self.came = {row["agent"]: row["answer"] for row in self.rows if row["error"] is None}
        self.said = {agent: answer for agent, answer in self.came.items() if answer is not None}
        options = len(first["choices"]) if self.closed else len(self.came) + 1
        self.options = max(2, options)


def questions(records: Sequence[Row]) -> list[Question]:
    """In the order in which they were asked."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in records:
        if row["purpose"] == "question":
            groups.setdefault((row["benchmark"], row["question_id"], row["repetition"]), []).append(row)
    return [Question(rows) for rows in groups.values()]


def decisions(asked: Sequence[Question]) -> Iterator[tuple[Question, dict[str, Decided], Known]]:
    """Each question with what every strategy decides, and with what was known before it."""
    learnt: dict[tuple[str, int], Known] = {}
    for question in asked:
        known = learnt.setdefault((question.key[0], question.key[2]), Known())
        yield question, {name: _decided(name, question, known) for name in WEIGHTS}, known
        learn(question, known)


def learn(question: Question, known: Known) -> None:
    if question.closed and len(question.said) > 1:
        chosen, _ = _winner(WEIGHTS["isp"](question, known), question)
        chances = posterior(question, known)
        for agent, answer in question.said.items():
            known.as_isp[agent] += answer == chosen
            known.with_isp[agent] += 1
            for option, chance in chances.items():
                known.said_where[agent, option, answer] += chance
        for (one, its), (other, theirs) in combinations(question.said.items(), 2):
            known.agreed[frozenset((one, other))] += its == theirs
            known.met[frozenset((one, other))] += 1
    for agent, answer in question.said.items():
        for about in (agent, (agent, question.topic)):
            known.right[about] += answer == question.right
            known.judged[about] += 1


def bounded(x: float) -> float:
    return min(max(x, 0.01), 0.99)


def accuracy(agent: str, question: Question, known: Known) -> float:
    k = question.options
    return bounded((known.right[agent] + 4 / k) / (known.judged[agent] + 4))


def topic_accuracy(agent: str, question: Question, known: Known) -> float:
    place = (agent, question.topic)
    return (known.right[place] + 10 * accuracy(agent, question, known)) / (known.judged[place] + 10)


def _log_odds(accuracies: Mapping[str, float], question: Question) -> dict[str, float]:
    k = question.options
    weights = {agent: math.log((k - 1) * x / (1 - x)) for agent, x in accuracies.items()}
    if not question.closed:
        weights = {agent: max(0.0, weight) for agent, weight in weights.items()}
    if all(abs(weight) < 1e-9 for weight in weights.values()):
        return dict.fromkeys(weights, 1.0)
    return weights


def _majority(question: Question, _known: Known) -> dict[str, float]:
    return dict.fromkeys(question.said, 1.0)


def _weighted(question: Question, known: Known) -> dict[str, float]:
    return _log_odds({agent: accuracy(agent, question, known) for agent in question.said}, question)


def _topic(question: Question, known: Known) -> dict[str, float]:
    found = {agent: bounded(topic_accuracy(agent, question, known)) for agent in question.said}
    return _log_odds(found, question)


def _isp(question: Question, known: Known) -> dict[str, float]:
    """`1 + sum_i (K p_ij - 1) / ((N-1) (K-1)^2)`, with four imagined questions for each pair."""
    k, weights = question.options, {}
    for agent in question.said:
        beyond = 0.0
        for other in question.said:
            pair = frozenset((agent, other))
            if other != agent and question.closed:
                beyond += (k * known.agreed[pair] - known.met[pair]) / (k - 1) / (known.met[pair] + 4)
        others = len(question.said) - 1
        weights[agent] = 1 + beyond / (others * (k - 1)) if others else 1.0
    return weights


def _ow_i(question: Question, known: Known) -> dict[str, float]:
    k = question.options
    counted = known if question.closed else Known()
    return _log_odds(
        {a: bounded((counted.as_isp[a] + 4 / k) / (counted.with_isp[a] + 4)) for a in question.said}, question
    )


WEIGHTS = {"majority": _majority, "weighted": _weighted, "topic": _topic, "isp": _isp, "ow_i": _ow_i}


def posterior(question: Question, known: Known) -> dict[str, float]:
    """Dawid and Skene's, of the options."""
    k = question.options
    options = LETTERS[:k]
    likely = {}
    for right in options:
        product = 1.0
        for agent, answer in question.said.items():
            prior = (1 + 1 / k) / 2 if answer == right else (1 - 1 / k) / 2 / (k - 1)
            counts = [known.said_where[agent, right, said] for said in options]
            here = known.said_where[agent, right, answer]
            product *= (here + 4 * prior) / (sum(counts) + 4)
        likely[right] = product
    total = sum(likely.values())
    return {option: chance / total for option, chance in likely.items()}


def _scores(weights: Mapping[str, float], question: Question) -> dict[str, float]:
    scores: dict[str, float] = {}
    for agent, answer in question.said.items():
        scores[answer] = scores.get(answer, 0.0) + weights[agent]
    return scores


def _winner(weights: Mapping[str, float], question: Question) -> tuple[str | None, float]:
    return won(_scores(weights, question), question)


def won(scores: Mapping[str, float], question: Question) -> tuple[str | None, float]:
    """The answer with the greatest score, by lot among equals, and the chance over lots that it is right."""
    if not scores:
        return None, 0.0
    most = max(scores.values())
    first = [a for a, score in scores.items() if math.isclose(score, most, rel_tol=1e-9, abs_tol=1e-9)]
    drawn = min(first, key=lambda a: hashlib.sha256(f"{question.lots}\n{a}".encode()).digest())
    return drawn, (question.right in first) / len(first)


def _decided(name: str, question: Question, known: Known) -> Decided:
    answer, chance = _winner(WEIGHTS[name](question, known), question)
    return answer, chance, confidence(answer, question, known)


def by_posterior(question: Question, known: Known) -> Decided:
    """`dawid_skene`; of an open question the majority."""
    if not question.closed:
        return _decided("majority", question, known)
    answer, chance = won(posterior(question, known) if question.said else {}, question)
    return answer, chance, confidence(answer, question, known)


def confidence(answer: str | None, question: Question, known: Known) -> float:
    """P(answer is right | votes) ~ prod_i P(a_i | right), x_i by topic; unknown ones share an accuracy, of
    which nine values from chance to 1 are equally probable."""
    if answer is None:
        return 0.0
    named = list(dict.fromkeys((answer, *question.said.values())))
    k = max(question.options, len(named))
    x = {
        agent: bounded(topic_accuracy(agent, question, known)) if known.judged[agent] else None
        for agent in question.came
    }
    chance = 1 / k
    shared = [chance + (1 - chance) * (step + 0.5) / 9 for step in range(9)] if None in x.values() else [0.0]
    weights = dict.fromkeys(named, 0.0)
    nobody = 0.0
    for value in shared:

        def says(agent: str, right: bool, value: float = value) -> float:
            own = value if x[agent] is None else x[agent]
            assert own is not None
            return own if right else (1 - own) / (k - 1)

        for right in named:
            weights[right] += math.prod(says(a, said == right) for a, said in question.said.items())
        nobody += (k - len(named)) * math.prod(says(a, False) for a in question.said)
    return weights[answer] / (sum(weights.values()) + nobody)
