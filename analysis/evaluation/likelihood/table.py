"""How well each agent's likelihoods choose, in the measures that are published of such benchmarks.

| column | what it is |
|---|---|
| `acc` | the right option is the likeliest: mc1, where the options are TruthfulQA's |
| `acc_norm` | it is so with likelihoods divided by the number of characters |
| `mc2` | the part of the likelihood of all statements that the true ones have |

Their names and rules are those of lm-evaluation-harness. The unit is the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.benchmarks.benchmark import LIKELIHOOD, PER_CHARACTER
from analysis.evaluation.benchmarks.question import LETTERS
from analysis.evaluation.likelihood.texts import Scored
from analysis.evaluation.likelihood.votes import likeliest, shares
from analysis.statistics.intervals import clustered_mean, wilson
from analysis.statistics.questions import fold

Row = dict[str, Any]
Score = tuple[str, float]
"""A question and what it earned."""


def likelihood_rows(exchanges: Iterable[Exchange]) -> list[Row]:
    """A row for each benchmark and agent whose options were scored. A question of which a score is missing
    earns nothing, and is counted as `incomplete`."""
    asked: dict[tuple[str, str], dict[tuple[str, int], list[Exchange]]] = {}
    for each in exchanges:
        if each.phase == "score":
            of_agent = asked.setdefault((each.benchmark, each.agents[0]), {})
            of_agent.setdefault((each.question_id, each.repetition), []).append(each)
    return [_row(benchmark, agent, list(parts.values())) for (benchmark, agent), parts in asked.items()]


def _row(benchmark: str, agent: str, asked: Sequence[Sequence[Exchange]]) -> Row:
    complete = [parts for parts in asked if all(part.scored is not None for part in parts)]
    chosen = {
        name: [(parts[0].question_id, float(_is_right(parts, way))) for parts in asked]
        for name, way in (("acc", LIKELIHOOD), ("acc_norm", PER_CHARACTER))
    }
    truths = [(parts[0].question_id, mass) for parts in asked if (mass := _truth(parts)) is not None]
    return {
        "benchmark": benchmark,
        "agent": agent,
        "seen_in_training": seen_in_training({benchmark}),
        "n_questions": len({parts[0].question_id for parts in asked}),
        "incomplete": len(asked) - len(complete),
        **_proportion("acc", chosen["acc"]),
        **_proportion("acc_norm", chosen["acc_norm"]),
        **_mean("mc2", truths),
        "greedy": _share(complete, lambda right: right.greedy),
        "log_likelihood_of_right": _share(complete, lambda right: right.log_likelihood),
        "texts": sum(map(len, asked)),
    }


def _is_right(parts: Sequence[Exchange], way: str) -> bool:
    options = _options(parts)
    return bool(options) and LETTERS[likeliest(options, way)] == parts[0].right


def _options(parts: Sequence[Exchange]) -> list[Scored]:
    """The scored options in their order; none if one is missing."""
    options = [part.scored for part in parts if part.scored is not None and part.scored.choice is not None]
    whole = len(options) == len(parts[0].choices)
    return sorted(options, key=lambda each: each.choice or 0) if whole else []


def _truth(parts: Sequence[Exchange]) -> float | None:
    """The part of the true statements; 0 if a score is missing, None for a question without statements."""
    scores = [part.scored for part in parts]
    labelled = [each for each in scores if each is not None and each.true is not None]
    if not labelled:
        return None
    if any(each is None for each in scores):
        return 0.0
    parted = shares([each.log_likelihood for each in labelled])
    return sum(share for each, share in zip(labelled, parted, strict=True) if each.true)


def _proportion(name: str, scores: Sequence[Score]) -> Row:
    questions = fold(scores)
    low, high = wilson(float(questions.means().sum()), questions.n).interval or (None, None)
    return {name: float(questions.means().mean()), f"{name}_low": low, f"{name}_high": high}


def _mean(name: str, scores: Sequence[Score]) -> Row:
    if not scores:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    questions = fold(scores)
    low, high = clustered_mean(questions).interval or (None, None)
    return {name: float(questions.means().mean()), f"{name}_low": low, f"{name}_high": high}


def _share(asked: Sequence[Sequence[Exchange]], of: Callable[[Scored], float]) -> float | None:
    """The mean over questions of what is said of the right option; None without any."""
    values = [of(right) for parts in asked for right in _right(parts)]
    return sum(values) / len(values) if values else None


def _right(parts: Sequence[Exchange]) -> Iterator[Scored]:
    options = _options(parts)
    if options:
        yield options[LETTERS.index(parts[0].right)]
