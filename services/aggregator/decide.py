"""From answers to decisions. Pure: every requested strategy sees the same ballots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.commands import Gather
from schemas.replies import Answer, Decision
from services.aggregator import strategies
from services.aggregator.history import AgentHistory
from services.aggregator.normalise import normalise


def ballots(gather: Gather, answers: Mapping[str, Answer]) -> list[strategies.Ballot]:
    """The ballots of an ensemble, in the order of its members; an answer that is an error casts none."""
    return [
        strategies.Ballot(
            agent=member,
            text=answers[member].text,
            answer=normalise(answers[member].text, gather.answer_kind, gather.choices),
        )
        for member in gather.members
        if member in answers and answers[member].error is None
    ]


def decide(
    gather: Gather, cast: Sequence[strategies.Ballot], histories: Mapping[str, AgentHistory]
) -> tuple[Decision, ...]:
    """One decision for each strategy; ties fall alike whenever the same is asked with the same seed."""
    context = strategies.StrategyContext(
        seed=gather.fingerprint,
        options=len(gather.choices) or None,
        history=histories,
    )
    return tuple(strategies.get(name)(cast, context) for name in gather.strategies)
