"""What else is decided, from the raw records: by strategies that ask more, by one agent alone, and in batch.

A decision is (answer, chance to be right over lots), as in `decisions.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from analysis.evaluation.tests.second.decisions import (
    WEIGHTS,
    Decided,
    Known,
    Question,
    Row,
    accuracy,
    bounded,
    by_posterior,
    confidence,
    posterior,
    topic_accuracy,
    won,
)

Key = tuple[str, str, int]
Chosen = tuple[str | None, float]


def rows_of(records: Sequence[Row], purpose: str) -> dict[Key, dict[str, Row]]:
    """The rows of a purpose, by question and agent."""
    found: dict[Key, dict[str, Row]] = defaultdict(dict)
    for row in records:
        if row["purpose"] == purpose:
            found[row["benchmark"], row["question_id"], row["repetition"]][row["agent"]] = row
    return found


def _counted(votes: Sequence[str | None]) -> dict[str, float]:
    return {answer: float(n) for answer, n in Counter(votes).items() if answer is not None}


def debate(question: Question, known: Known, second: Mapping[str, Row]) -> Decided:
    """The majority of the last answers that could be read."""
    votes = dict(question.came)
    if len(set(question.said.values())) > 1:
        votes |= {a: second[a]["answer"] for a in votes if a in second and second[a]["answer"] is not None}
    answer, chance = won(_counted(list(votes.values())), question)
    return answer, chance, confidence(answer, question, known)


def average(question: Question, known: Known) -> Decided:
    """The mean of probabilities, weighted by accuracies."""
    given = {
        row["agent"]: row["option_probabilities"]
        for row in question.rows
        if row["option_probabilities"] is not None
    }
    total = sum(accuracy(agent, question, known) for agent in given)
    scores: dict[str, float] = defaultdict(float)
    for agent, chances in given.items():
        for letter, chance in chances.items():
            scores[letter] += accuracy(agent, question, known) / total * chance
    answer, chance = won(scores, question)
    return answer, chance, confidence(answer, question, known)


def fitted(question: Question, known: Known) -> dict[str, float]:
    """x of `(K p_ij - 1)/(K-1) = z_i z_j`, least squares weighted by how often two have met."""
    k = question.options
    agents = sorted({agent for pair in known.met for agent in pair})
    met = {pair for pair in known.met if known.met[pair]}
    trios = [t for t in combinations(agents, 3) if all(frozenset(p) in met for p in combinations(t, 2))]
    agents = sorted({agent for trio in trios for agent in trio})
    n, c = np.zeros((len(agents),) * 2), np.zeros((len(agents),) * 2)
    for (i, one), (j, other) in combinations(enumerate(agents), 2):
        pair = frozenset((one, other))
        n[i, j] = n[j, i] = known.met[pair]
        c[i, j] = c[j, i] = (k * known.agreed[pair] - known.met[pair]) / (k - 1) / (known.met[pair] + 4)
    off = np.where(n > 0, c, -np.inf)
    z = np.sqrt(np.clip(off.max(axis=1, initial=-np.inf), 0, None))
    for _ in range(5_000):
        before = z.copy()
        for i in range(len(agents)):
            square = float(n[i] @ (z * z))
            z[i] = np.clip(float(n[i] * c[i] @ z) / square if square else 0.0, -1 / (k - 1), 1)
        if np.abs(z - before).max(initial=0.0) < 1e-12:
            break
    return {agent: round((1 + (k - 1) * float(at)) / k, 6) for agent, at in zip(agents, z, strict=True)}


def ow_l(question: Question, known: Known) -> Decided:
    """A vote by the log-odds of fitted accuracies; of an open question the majority."""
    k = question.options
    x = fitted(question, known) if question.closed else {}
    own = {agent: bounded(x.get(agent, 1 / k)) for agent in question.said}
    weights = {agent: math.log((k - 1) * at / (1 - at)) for agent, at in own.items()}
    if not question.closed or all(abs(weight) < 1e-9 for weight in weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    scores: dict[str, float] = defaultdict(float)
    for agent, said in question.said.items():
        scores[said] += weights[agent]
    answer, chance = won(scores, question)
    return answer, chance, confidence(answer, question, known)


def fold(question: Question, seed: int) -> int:
    """One of five, the same for all repetitions."""
    benchmark, name, _ = question.key
    return int.from_bytes(hashlib.sha256(f"{seed} {benchmark} {name}".encode()).digest()[:8]) % 5


def best_elsewhere(question: Question, others: Sequence[Question], agents: Sequence[str], seed: int) -> str:
    """Who has most right in the other folds; of equals the first by name."""
    own = fold(question, seed)
    right = {
        agent: sum(each.said.get(agent) == each.right for each in others if fold(each, seed) != own)
        for agent in sorted(agents)
    }
    return max(right, key=lambda agent: right[agent])


def alone(asked: Sequence[Question], agents: Sequence[str], seed: int) -> dict[tuple[str, Key], Chosen]:
    """What the best agent, the cross-fitted router and the bound of all routers say."""
    made: dict[tuple[str, Key], Chosen] = {}
    for question in asked:
        same = [each for each in asked if each.key[0] == question.key[0]]
        on_topic = [each for each in same if each.topic == question.topic]
        best = best_elsewhere(question, same, agents, seed)
        apart = len({fold(each, seed) for each in on_topic}) > 1
        router = best_elsewhere(question, on_topic, agents, seed) if apart else best
        right = {
            agent: sum(each.said.get(agent) == each.right for each in on_topic) for agent in sorted(agents)
        }
        seen = max(right, key=lambda agent: right[agent])
        for name, agent in (("best_agent", best), ("router", router), ("topic_best", seen)):
            said = question.said.get(agent)
            made[name, question.key] = (said, float(said == question.right))
    return made


def router_online(question: Question, known: Known, agents: Sequence[str]) -> Chosen:
    """The agent with the greatest accuracy on the topic so far; the mean over equals, the first by name."""
    whole = Question(question.rows)
    whole.options = question.options if question.closed else len(agents) + 1
    trusted = {agent: round(topic_accuracy(agent, whole, known), 12) for agent in sorted(agents)}
    first = [agent for agent, x in trusted.items() if x == max(trusted.values())]
    right = [question.said.get(agent) == question.right for agent in first]
    return question.said.get(first[0]), sum(right) / len(right)


def batch(asked: Sequence[Question]) -> dict[tuple[str, Key], Chosen]:
    """The label-free strategies with what all questions of a repetition tell."""
    made: dict[tuple[str, Key], Chosen] = {}
    groups: dict[tuple[str, int], list[Question]] = defaultdict(list)
    for question in asked:
        if question.closed:
            groups[question.key[0], question.key[2]].append(question)
    for group in groups.values():
        known = _all_at_once(group)
        for question in group:
            for name in ("isp", "ow_i"):
                weights = WEIGHTS[name](question, known)
                scores: dict[str, float] = defaultdict(float)
                for agent, said in question.said.items():
                    scores[said] += weights[agent]
                made[f"{name}_batch", question.key] = won(scores, question)
            made["dawid_skene_batch", question.key] = by_posterior(question, known)[:2]
            made["ow_l_batch", question.key] = ow_l(question, known)[:2]
    return made


def _all_at_once(group: Sequence[Question]) -> Known:
    known = Known()
    for question in group:
        for (one, its), (other, theirs) in combinations(question.said.items(), 2):
            known.agreed[frozenset((one, other))] += its == theirs
            known.met[frozenset((one, other))] += 1
    for question in group:
        weights = WEIGHTS["isp"](question, known)
        scores: dict[str, float] = defaultdict(float)
        for agent, said in question.said.items():
            scores[said] += weights[agent]
        chosen, _ = won(scores, question)
        for agent, said in question.said.items():
            known.as_isp[agent] += said == chosen
            known.with_isp[agent] += 1
    for _ in range(200):
        counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        for question in group:
            if question.said:
                for option, chance in posterior(question, known).items():
                    for agent, said in question.said.items():
                        counts[agent, option, said] += chance
        moved = max(abs(counts[place] - known.said_where[place]) for place in counts)
        known.said_where = counts
        if moved < 1e-7:
            break
    return known
