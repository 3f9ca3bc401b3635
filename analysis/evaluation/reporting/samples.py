"""A page with the single questions of a run: who said what, and what each strategy made of it.

It loads nothing, and is filtered where it is read: by benchmark, disagreement of agents, answers that could
not be read, and strategies that are right, wrong, or decide otherwise than another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.charts.drawing.page import templates
from analysis.evaluation.asking.run_folder import RunConfig
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.scoring.reading import Asked, Reply
from schemas.replies import Answer

TEMPLATE = "samples.html.j2"
MOST_SAMPLES = 4_000
MOST_CHARACTERS = 1_500
NOTHING_READ, NO_ANSWER = "not read", "no answer"


def samples(config: RunConfig, asked: Sequence[Asked], outcomes: Iterable[Outcome]) -> str:
    """The page as HTML, of the first `MOST_SAMPLES` samples; longer texts are cut."""
    shown = asked[:MOST_SAMPLES]
    decided = _decided(outcomes, {each.key for each in shown})
    document = [_sample(each, decided.get(each.key, {})) for each in shown]
    strategies = list(dict.fromkeys(name for each in document for name in each["decided"]))
    template = templates(Path(__file__).parent).get_template(TEMPLATE)
    return template.render(
        config=config,
        document=_in_a_page(document),
        strategies=strategies,
        benchmarks=list(dict.fromkeys(each.exchange.benchmark for each in shown)),
        seen=seen_in_training(config.benchmarks),
        shown=len(shown),
        all=len(asked),
        most=MOST_CHARACTERS,
    )


def _in_a_page(document: object) -> str:
    """JSON that no text in it can end: within a script `<` begins a tag."""
    return json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")


def _decided(
    outcomes: Iterable[Outcome], wanted: set[tuple[str, str, int]]
) -> dict[tuple[str, str, int], dict[str, Any]]:
    decided: dict[tuple[str, str, int], dict[str, Any]] = {}
    for outcome in outcomes:
        key = outcome.benchmark, outcome.question_id, outcome.repetition
        if outcome.group == "strategy" and key in wanted:
            decided.setdefault(key, {})[outcome.contestant] = {
                "answer": outcome.answer,
                "right": outcome.right,
                "tie": outcome.tie,
                "confidence": None if outcome.confidence is None else round(outcome.confidence, 3),
            }
    return decided


def _sample(asked: Asked, decided: dict[str, Any]) -> dict[str, Any]:
    kept = asked.exchange
    given = {answer.agent: answer for answer in kept.answers}
    read = {reply.answer for reply in asked.replies if reply.answer is not None}
    return {
        "benchmark": kept.benchmark,
        "question": kept.question_id,
        "topic": kept.topic,
        "repetition": kept.repetition,
        "prompt": _cut(kept.prompt),
        "choices": kept.choices,
        "right": kept.right,
        "agents": [_reply(reply, given.get(reply.agent)) for reply in asked.replies],
        "disagree": len(read) > 1,
        "unread": any(reply.answer is None for reply in asked.replies),
        "cached": bool(kept.from_cache),
        "decided": decided,
    }


def _reply(reply: Reply, given: Answer | None) -> dict[str, Any]:
    probabilities = None if given is None else given.option_probabilities
    why = reply.why_not or (NOTHING_READ if reply.answer is None else None)
    return {
        "agent": reply.agent,
        "text": "" if given is None else _cut(given.text),
        "answer": reply.answer,
        "right": reply.right,
        "why": f"{NO_ANSWER}: {why}" if reply.why_not else why,
        "tokens": reply.tokens,
        "likely": None if not probabilities else {key: round(p, 3) for key, p in probabilities.items()},
    }


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
