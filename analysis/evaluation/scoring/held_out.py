"""`auto` on questions that taught it nothing: each third of a benchmark is decided with what the other two
have taught, and compared with the agent that was best on these two.

Both choose by the same answers, and both are scored on others. The unit is the question. Topics are those of
the benchmark; a mesh that is told none judges by the words. Cascades are played with the rule of the mesh.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.replay import chance_to_be_right, question_of
from analysis.evaluation.effort.replayed import replayed
from analysis.evaluation.reporting.tables import Row
from analysis.evaluation.scoring.reading import Asked, Reply
from analysis.evaluation.scoring.scores import OVERALL
from analysis.statistics.checks import Floats
from analysis.statistics.questions import fold
from schemas.ensembles.effort import Way
from services.aggregator.decide import context_of
from services.aggregator.effort.rule import Rule
from services.aggregator.scores.history import History
from services.aggregator.scores.learning import learn_answers, learn_label
from services.aggregator.strategies import get
from services.aggregator.strategies.accuracy import best_agent
from services.aggregator.strategies.auto import choose_way

THIRDS = 3
LEVEL = 0.95
"""Of each of the two one-sided bounds."""


class Tried(NamedTuple):
    """One question, decided by `auto` and by the best agent alone: scores from 0 to 1, and tokens."""

    question: str
    way: Way
    score: float
    best_score: float
    tokens: int
    best_tokens: int


def held_out_rows(asked: Sequence[Asked], seed: int) -> list[Row]:
    """A row for each benchmark, and one for all together where there are several."""
    names = list(dict.fromkeys(each.exchange.benchmark for each in asked))
    tried = {
        name: list(_held_out([e for e in asked if e.exchange.benchmark == name], seed)) for name in names
    }
    if len(names) > 1:
        tried[OVERALL] = [one for of_one in tried.values() for one in of_one]
    return [row_of(name, of_one) for name, of_one in tried.items() if of_one]


def third_of(each: Asked, seed: int) -> int:
    """The third into which a question is dealt, with all its repetitions."""
    digest = hashlib.sha256(f"thirds {seed} {each.unit[0]} {each.unit[1]}".encode()).digest()
    return int.from_bytes(digest[:8]) % THIRDS


def _held_out(asked: Sequence[Asked], seed: int) -> Iterator[Tried]:
    thirds = [third_of(each, seed) for each in asked]
    for third in range(THIRDS):
        history = History()
        for each, of in zip(asked, thirds, strict=True):
            if of != third:
                kept = each.exchange
                learn_answers(history, each.ballots.first, question_of(each))
                learn_label(history, each.ballots.first, kept.right, kept.topic)
        yield from (_tried(each, history) for each, of in zip(asked, thirds, strict=True) if of == third)


def _tried(each: Asked, history: History) -> Tried:
    kept = each.exchange
    context = context_of(question_of(each), history)
    said = {ballot.agent: ballot for ballot in each.ballots.first}
    replies = {reply.agent: reply for reply in each.replies}
    best = replies[
        best_agent(kept.agents, context, context.options or len(kept.agents) + 1) or kept.agents[0]
    ]
    chosen = choose_way(kept.agents, context)
    members = chosen.members
    if chosen.way == "cascade":
        asked = replayed(Rule(("topic",), kept.agents, context), said).asked
        members = tuple(member for member in kept.agents if member in asked)
    elif chosen.way == "single" and replies[members[0]].answer is None:  # a mesh asks the others then
        members = kept.agents
    decision = get("topic")([said[member] for member in members if member in said], context)
    return Tried(
        question=f"{kept.benchmark}/{kept.question_id}",
        way=chosen.way,
        score=chance_to_be_right(decision, kept.right),
        best_score=float(best.right),
        tokens=_tokens([replies[member] for member in members]),
        best_tokens=best.tokens,
    )


def _tokens(replies: Sequence[Reply]) -> int:
    return sum(reply.tokens for reply in replies)


def row_of(benchmark: str, tried: Sequence[Tried]) -> Row:
    """What was found. The bounds are of two one-sided t tests over questions; `better` and `worse` are said
    where a bound is beyond 0, and else it is a tie: neither was shown."""
    auto = fold((one.question, one.score) for one in tried).means()
    best = fold((one.question, one.best_score) for one in tried).means()
    low, high = one_sided(auto - best)
    ways = Counter(one.way for one in tried)
    tokens, best_tokens = sum(one.tokens for one in tried), sum(one.best_tokens for one in tried)
    return {
        "benchmark": benchmark,
        "seen_in_training": seen_in_training({one.question.partition("/")[0] for one in tried}),
        "n_questions": int(auto.size),
        "n_samples": len(tried),
        **{way: ways[way] for way in ("single", "cascade", "full")},
        "accuracy": float(auto.mean()),
        "accuracy_of_best": float(best.mean()),
        "difference": float((auto - best).mean()),
        "lower_bound": low,
        "upper_bound": high,
        "verdict": "better" if low > 0 else "worse" if high < 0 else "a tie",
        "tokens_per_question": tokens / len(tried),
        "tokens_beside_best": tokens / best_tokens if best_tokens else None,
    }


def one_sided(differences: Floats) -> tuple[float, float]:
    """The lower and the upper bound of the mean, each at a confidence of 95 %. Of one question nothing is
    known: from -1 to 1."""
    if differences.size < 2:
        return -1.0, 1.0
    mean = float(differences.mean())
    error = float(np.std(differences, ddof=1)) / math.sqrt(differences.size)
    reach = float(stats.t.ppf(LEVEL, differences.size - 1)) * error
    return mean - reach, mean + reach
