"""What is decided by whom a strategy chooses, by predictions, and by samples of one agent: of raw records."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from analysis.evaluation.tests.second.decisions import (
    WEIGHTS,
    Decided,
    Known,
    Question,
    Row,
    bounded,
    confidence,
    topic_accuracy,
    won,
)
from analysis.evaluation.tests.second.further import Chosen, Key, best_elsewhere

FEWEST_JUDGED, LEAST_GAIN, STEPS = 10, 0.01, 64


def isp_elicited(question: Question, known: Known, foretold: Mapping[str, Row]) -> Decided:
    """`votes(a) - N predictions(a) / all predictions`; the majority where that tells nothing."""
    given = Counter(question.said.values())
    predicted = Counter(
        row["answer"]
        for agent, row in foretold.items()
        if agent in question.came and row["answer"] is not None
    )
    scores = {answer: float(n) for answer, n in given.items()}
    if predicted.total() and len(scores) > 1:
        part = given.total() / predicted.total()
        surprise = {answer: n - part * predicted[answer] for answer, n in given.items()}
        if max(surprise.values()) - min(surprise.values()) > 1e-9:
            scores = surprise
    answer, chance = won(scores, question)
    return answer, chance, confidence(answer, question, known)


def auto(question: Question, known: Known) -> tuple[Decided, tuple[str, ...]]:
    """By whom `auto` lets a question decide, as (what they decide, who is asked)."""
    agents = tuple(question.came)
    one = _one_alone(question, known)
    if one is not None and one in question.said:
        said = question.said[one]
        return (said, float(said == question.right), confidence(said, question, known)), (one,)
    weights = WEIGHTS["topic"](question, known)
    scores: dict[str, float] = {}
    for agent, said in question.said.items():
        scores[said] = scores.get(said, 0.0) + weights[agent]
    answer, chance = won(scores, question)
    return (answer, chance, confidence(answer, question, known)), agents


def _one_alone(question: Question, known: Known) -> str | None:
    """The agent that is asked alone; None where all are."""
    judged = [a for a in question.came if known.judged[a, question.topic] >= FEWEST_JUDGED]
    if not judged:
        return None
    x = {agent: bounded(topic_accuracy(agent, question, known)) for agent in question.came}

    def lot(agent: str) -> bytes:
        return hashlib.sha256(f"{question.lots}\n{agent}".encode()).digest()

    best = max(judged, key=lambda agent: (x[agent], lot(agent)))
    return None if together(x, question.options) - x[best] >= LEAST_GAIN else best


def together(accuracies: Mapping[str, float], options: int) -> float:
    """How often who is right outweighs who errs, over all ways to err; weights in 64 steps, a tie half."""
    weights = [max(0.0, math.log((options - 1) * x / (1 - x))) for x in accuracies.values()]
    if not any(weights):
        return 0.0
    steps = [weight / (max(weights) / STEPS) for weight in weights]
    total = 0.0
    for are_right in product((True, False), repeat=len(steps)):
        lead = sum(
            math.floor(s) if right else -math.ceil(s) for s, right in zip(steps, are_right, strict=True)
        )
        chance = math.prod(
            x if right else 1 - x for x, right in zip(accuracies.values(), are_right, strict=True)
        )
        total += chance * (1.0 if lead > 0 else 0.5 if lead == 0 else 0.0)
    return total


def sampled(name: str, question: Question, samples: Sequence[Row], count: int) -> Chosen:
    """The majority of so many samples, by lots of its own."""
    own = Question(question.rows)
    own.lots = f"{name} {question.key}"
    votes = Counter(row["answer"] for row in samples[:count] if row["answer"] is not None)
    return won({answer: float(n) for answer, n in votes.items()}, own)


def matched(
    asked: Sequence[Question], again: Mapping[Key, Mapping[str, Row]], agents: Sequence[str], seed: int
) -> dict[str, int]:
    """How many answers of the best agent the tokens of both rounds pay for, by benchmark."""
    counts = {}
    for benchmark in dict.fromkeys(question.key[0] for question in asked):
        same = [question for question in asked if question.key[0] == benchmark]
        spent, of_best = 0, 0
        for question in same:
            best = best_elsewhere(question, same, agents, seed)
            spent += sum(map(_tokens, (*question.rows, *again.get(question.key, {}).values())))
            of_best += sum(_tokens(row) for row in question.rows if row["agent"] == best)
        counts[benchmark] = max(1, round(spent / of_best))
    return counts


def _tokens(row: Row) -> int:
    return 0 if row["error"] is not None else row["prompt_tokens"] + row["generated_tokens"]
