"""The best agent, picked on other questions than those it is scored on.

Whoever picks the best of several agents by the very answers that are then scored has picked luck too. The
questions are dealt into folds; for each fold the agent that was most often right on all others is the best.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from analysis.evaluation.scoring.reading import Asked

FOLDS = 5

Unit = tuple[str, str]


def fold_of(unit: Unit, seed: int) -> int:
    """Which fold a question is dealt into: all its repetitions into the same one."""
    digest = hashlib.sha256(f"{seed} {unit[0]} {unit[1]}".encode()).digest()
    return int.from_bytes(digest[:8]) % FOLDS


def best_agents(asked: Sequence[Asked], seed: int) -> dict[Unit, str]:
    """The best agent for each question: the most accurate on the benchmark's questions of the other folds.

    Where there are none, as with a single question, and among equals, it is the first by name.
    """
    best: dict[Unit, str] = {}
    for benchmark in dict.fromkeys(each.exchange.benchmark for each in asked):
        of_benchmark = [each for each in asked if each.exchange.benchmark == benchmark]
        right = _right_by_fold(of_benchmark, seed)
        best_of_fold = [_best_elsewhere(right, fold) for fold in range(FOLDS)]
        for each in of_benchmark:
            best[each.unit] = best_of_fold[fold_of(each.unit, seed)]
    return best


def best_on_topics(asked: Sequence[Asked], seed: int, *, held_out: bool = True) -> dict[Unit, str]:
    """The best agent on the topic of each question, by the topic's questions of the other folds.

    A question whose topic has no questions in other folds is left out. Not `held_out`, all the topic's
    questions count, the scored one among them.
    """
    topics: dict[tuple[str, str], list[Asked]] = {}
    for each in asked:
        topics.setdefault((each.exchange.benchmark, each.exchange.topic), []).append(each)
    best: dict[Unit, str] = {}
    for of_topic in topics.values():
        right = _right_by_fold(of_topic, seed)
        folds = {fold_of(each.unit, seed) for each in of_topic}
        best_of_fold = {fold: _best_elsewhere(right, fold if held_out else -1) for fold in folds}
        if held_out and len(folds) == 1:
            continue
        best |= {each.unit: best_of_fold[fold_of(each.unit, seed)] for each in of_topic}
    return best


def _best_elsewhere(right: Mapping[str, Mapping[int, int]], fold: int) -> str:
    """The agent with the most right answers in the other folds."""
    return max(sorted(right), key=lambda agent: sum(n for other, n in right[agent].items() if other != fold))


def _right_by_fold(asked: Sequence[Asked], seed: int) -> dict[str, dict[int, int]]:
    """How many answers of each agent are right in each fold."""
    right: dict[str, dict[int, int]] = {}
    for each in asked:
        fold = fold_of(each.unit, seed)
        for reply in each.replies:
            of_agent = right.setdefault(reply.agent, {})
            of_agent[fold] = of_agent.get(fold, 0) + reply.right
    return right
