"""What single answers and scores come to: for each question one record with an answer of every agent.

An agent whose options were scored votes for the likeliest one, and how likely it holds each is known. So
every strategy, baseline and test takes such questions as it takes others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.benchmarks.benchmark import PER_CHARACTER
from analysis.evaluation.benchmarks.question import LETTERS
from analysis.evaluation.likelihood.texts import Scored
from schemas.errors import ErrorBody
from schemas.replies import Answer, Result, Timings


def one_for_each_question(exchanges: Iterable[Exchange], ways: Mapping[str, str]) -> list[Exchange]:
    """The exchanges with those of single agents put together; `ways` is how answers are read, by
    benchmark."""
    whole: list[Exchange] = []
    apart: dict[tuple[str, str, int], list[Exchange]] = {}
    for each in exchanges:
        if each.phase in ("alone", "score"):
            apart.setdefault(each.key, []).append(each)
        else:
            whole.append(each)
    return whole + [_together(parts, ways[parts[0].benchmark]) for parts in apart.values()]


def _together(parts: Sequence[Exchange], way: str) -> Exchange:
    by_agent: dict[str, list[Exchange]] = {}
    for part in parts:
        by_agent.setdefault(part.agents[0], []).append(part)
    first = parts[0]
    answers = {agent: _answer(agent, of_one, way) for agent, of_one in by_agent.items()}
    came = tuple(answer for answer in answers.values() if answer is not None)
    failed = next((part.error for part in parts if part.error is not None), None)
    result = Result(
        request_id=first.request_id,
        fingerprint=first.fingerprint,
        topology="ensemble",
        answers=came,
        accepted_at_s=min(part.asked_at_s for part in parts),
        completed_at_s=max(part.asked_at_s + part.wall_s for part in parts),
    )
    origins: dict[str, str] = {}
    for part in parts:
        origins |= part.from_cache
    return first.model_copy(
        update={
            "phase": "fan_out",
            "sample": 0,
            "agents": tuple(sorted(by_agent)),
            "result": result if came else None,
            "error": None if came else failed,
            "scored": None,
            "from_cache": origins,
        }
    )


def _answer(agent: str, parts: Sequence[Exchange], way: str) -> Answer | None:
    """What an agent's answer is; None where it is an error of the request."""
    if parts[0].phase == "alone":
        result = parts[0].result
        return None if result is None or not result.answers else result.answers[0]
    given = [part.result.answers[0] for part in parts if part.result is not None]
    scores = [part.scored for part in parts if part.scored is not None]
    options = sorted((each for each in scores if each.choice is not None), key=lambda each: each.choice or 0)
    if not given:
        return None
    base = given[0].model_copy(
        update={
            "prompt_tokens": sum(each.prompt_tokens for each in given),
            "generated_tokens": 0,
            "timings": _sum([each.timings for each in given]),
        }
    )
    error = next((part.error for part in parts if part.error is not None), None)
    if error is not None or len(options) < len(parts[0].choices):
        missing = error or ErrorBody(code="no_answers", message="not all options were scored")
        return base.model_copy(update={"error": missing, "finish_reason": "error"})
    probabilities = shares([each.log_likelihood for each in options])
    return base.model_copy(
        update={
            "text": LETTERS[likeliest(options, way)],
            "option_probabilities": dict(zip(LETTERS, probabilities, strict=False)),
        }
    )


def likeliest(options: Sequence[Scored], way: str) -> int:
    """The place of the option that is chosen; the first of equals, as with the harnesses."""
    measures = [measure(each, way) for each in options]
    return measures.index(max(measures))


def measure(scored: Scored, way: str) -> float:
    """What options are compared by."""
    per = max(1, scored.length) if way == PER_CHARACTER else 1
    return scored.log_likelihood / per


def shares(log_likelihoods: Sequence[float]) -> list[float]:
    """The likelihoods as parts of their sum."""
    highest = max(log_likelihoods)
    weights = [math.exp(each - highest) for each in log_likelihoods]
    return [each / sum(weights) for each in weights]


def _sum(timings: Sequence[Timings]) -> Timings:
    """One after another."""
    names = Timings.model_fields
    return Timings(**{name: sum(getattr(each, name) for each in timings) for name in names})
