"""What less effort would have spared, as a table: calls and tokens, and how often it decides otherwise.

Two kinds of voters: the agents of a run, whose history is what the questions before have taught, as with
every strategy; and samples of the best agent, of which nothing is known beforehand (self-consistency, the
case of Adaptive-Consistency, arXiv:2305.11860). All answers teach here, also those that a cascade would not
have asked for: a live one learns less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.replay import history_before, question_of
from analysis.evaluation.effort.replayed import Replayed, replayed
from analysis.evaluation.reporting.tables import Row
from analysis.evaluation.scoring.reading import Asked
from analysis.evaluation.scoring.scores import OVERALL
from analysis.statistics.intervals import clopper_pearson
from schemas.ensembles.strategies import specs_of
from services.aggregator.decide import context_of
from services.aggregator.effort.rule import Rule
from services.aggregator.scores.history import History
from services.aggregator.strategies import Ballot, StrategyContext

EPSILONS = (0.01, 0.05, 0.1)
EFFORTS: tuple[float | None, ...] = (None, *EPSILONS)
"""Exact, and bounded with each epsilon."""
SAMPLES = (4, 5, 9)
"""So many samples of the best agent vote."""
AGENTS, SAMPLED = "agents", "samples of the best agent"


class Case(NamedTuple):
    """A table's row: who votes, how many, by which strategy, with which effort (None: exact)."""

    benchmark: str
    voters: str
    members: int
    strategy: str
    epsilon: float | None


class Tried(NamedTuple):
    """One question with less effort and with all."""

    unit: tuple[str, str]
    cascade: Replayed
    full: str | None
    right: str
    tokens: int
    all_tokens: int


def effort_rows(asked: Sequence[Asked], names: Sequence[str]) -> list[Row]:
    """A row for each strategy that can do with fewer, number of voters and effort: of each benchmark, and of
    all together where there are several. None without answers."""
    cases: dict[Case, list[Tried]] = {}
    together: dict[Case, list[Tried]] = {}
    for case, tried in _tries(asked, names):
        cases.setdefault(case, []).append(tried)
        together.setdefault(case._replace(benchmark=OVERALL), []).append(tried)
    if len({case.benchmark for case in cases}) > 1:
        cases |= together
    return [row_of(case, tried) for case, tried in cases.items()]


def _tries(asked: Sequence[Asked], names: Sequence[str]) -> Iterator[tuple[Case, Tried]]:
    able = [spec.name for spec in specs_of(tuple(names)) if spec.cascades]
    for each, history in history_before(asked):
        yield from _of_agents(each, able, history)
        yield from _of_samples(each)


def _of_agents(each: Asked, able: Sequence[str], history: History) -> Iterator[tuple[Case, Tried]]:
    members = each.exchange.agents
    context = context_of(question_of(each), history)
    said = {ballot.agent: ballot for ballot in each.ballots.first}
    tokens = {reply.agent: reply.tokens for reply in each.replies}
    for name in able:
        for epsilon in EFFORTS:
            rule = Rule((name,), members, context, epsilon)
            case = Case(each.exchange.benchmark, AGENTS, len(members), name, epsilon)
            yield case, _tried(each, rule, said, tokens)


def _of_samples(each: Asked) -> Iterator[tuple[Case, Tried]]:
    own = _of_best(each)
    for count in SAMPLES:
        if len(own) < count:
            return
        said = {f"{n}": replace(ballot, agent=f"{n}") for n, (ballot, _) in enumerate(own[:count], 1)}
        tokens = {f"{n}": tokens for n, (_, tokens) in enumerate(own[:count], 1)}
        context = StrategyContext(question_of(each).seed, question_of(each).options)
        for epsilon in EFFORTS:
            rule = Rule(("majority",), tuple(said), context, epsilon)
            case = Case(each.exchange.benchmark, SAMPLED, count, "majority", epsilon)
            yield case, _tried(each, rule, said, tokens)


def _of_best(each: Asked) -> list[tuple[Ballot, int]]:
    return [(ballot, reply.tokens) for ballot, reply in zip(each.sample_ballots, each.samples, strict=True)]


def _tried(each: Asked, rule: Rule, said: dict[str, Ballot], tokens: dict[str, int]) -> Tried:
    cascade = replayed(rule, said)
    full = rule.decide(tuple(said.values()))[0].answer
    spent = sum(tokens.get(member, 0) for member in cascade.asked)
    return Tried(each.unit, cascade, full, each.exchange.right, spent, sum(tokens.values()))


def row_of(case: Case, tried: Sequence[Tried]) -> Row:
    """What less effort came to. The unit is the question: it is changed if any repetition of it is."""
    calls = sum(len(one.cascade.asked) for one in tried)
    tokens, all_tokens = sum(one.tokens for one in tried), sum(one.all_tokens for one in tried)
    changed = {one.unit for one in tried if one.cascade.answer != one.full}
    questions = len({one.unit for one in tried})
    low, high = clopper_pearson(len(changed), questions).interval or (0.0, 1.0)
    return {
        "benchmark": case.benchmark,
        "voters": case.voters,
        "members": case.members,
        "strategy": case.strategy,
        "seen_in_training": seen_in_training({one.unit[0] for one in tried}),
        "effort": "exact" if case.epsilon is None else "bounded",
        "epsilon": case.epsilon,
        "n_questions": questions,
        "n_samples": len(tried),
        "calls_per_question": calls / len(tried),
        "saved_calls": 1 - calls / (case.members * len(tried)),
        "tokens_per_question": tokens / len(tried),
        "saved_tokens": 1 - tokens / all_tokens if all_tokens else None,
        "waves_per_question": _mean(len(one.cascade.waves) for one in tried),
        "mean_bound": _mean(one.cascade.bound for one in tried),
        "changed": len(changed),
        "changed_share": len(changed) / questions,
        "changed_low": low,
        "changed_high": high,
        "accuracy": _mean(one.cascade.answer == one.right for one in tried),
        "accuracy_of_all": _mean(one.full == one.right for one in tried),
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
