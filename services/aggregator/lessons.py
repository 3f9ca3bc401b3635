"""What was learnt of agents, in its stored form and as a reply to clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.message import Part
from schemas.replies import AgentAgreement, Score, ScoresReply, UnlabelledScore
from services.aggregator.agreement import Agreement, Pair
from services.aggregator.history import NO_HISTORY, AgentHistory, History, Unlabelled

DECIMALS = 4
"""Of expected counts: one question in ten thousand is less than they can tell."""


class StoredUnlabelled(Part):
    """What questions of so many options tell without right answers, as the bucket holds it."""

    agreement: tuple[AgentAgreement, ...] = ()
    agents: tuple[UnlabelledScore, ...] = ()


def unlabelled_to_bytes(known: Unlabelled) -> bytes:
    """The form in which the bucket holds it."""
    options = options_in(known)
    stored = StoredUnlabelled(
        agreement=agreement_scores(known.agreement, options), agents=unlabelled_scores(known, options)
    )
    return stored.model_dump_json().encode()


def unlabelled_from_bytes(data: bytes) -> Unlabelled:
    """The inverse of `unlabelled_to_bytes`, but for rounding; ValueError for anything else."""
    stored = StoredUnlabelled.model_validate_json(data)
    return Unlabelled(
        agreement={
            frozenset((each.one, each.other)): Agreement(agreed=each.agreed, both=each.both)
            for each in stored.agreement
        },
        isp={each.agent: AgentHistory(correct=each.with_isp, asked=each.asked) for each in stored.agents},
        confusions={
            each.agent: tuple(count for row in each.confusion for count in row)
            for each in stored.agents
            if each.confusion
        },
    )


def options_in(known: Unlabelled) -> int:
    """How many options the questions had: the side of their square of counts; 2 if nothing is known."""
    return next((round(len(counts) ** 0.5) for counts in known.confusions.values()), 2)


def agreement_scores(agreement: Mapping[Pair, Agreement], options: int) -> tuple[AgentAgreement, ...]:
    """Every pair by the names of its agents."""
    pairs = sorted((*sorted(pair), each.agreed, each.both) for pair, each in agreement.items())
    return tuple(
        AgentAgreement(one=one, other=other, options=options, agreed=agreed, both=both)
        for one, other, agreed, both in pairs
    )


def unlabelled_scores(known: Unlabelled, options: int) -> tuple[UnlabelledScore, ...]:
    """Every agent by its name."""
    scores = []
    for agent in sorted(known.isp.keys() | known.confusions.keys()):
        history = known.isp.get(agent, NO_HISTORY)
        counts = [round(count, DECIMALS) for count in known.confusions.get(agent, ())]
        rows = tuple(tuple(counts[row : row + options]) for row in range(0, len(counts), options))
        scores.append(
            UnlabelledScore(
                agent=agent, options=options, with_isp=history.correct, asked=history.asked, confusion=rows
            )
        )
    return tuple(scores)


def scores_reply(history: History, *, reset: bool = False) -> ScoresReply:
    """All that is known, in an order that does not depend on when it was learnt."""
    overall = [Score(agent=a, correct=h.correct, asked=h.asked) for a, h in sorted(history.agents.items())]
    by_topic = [
        Score(agent=agent, topic=topic, correct=known.correct, asked=known.asked)
        for topic, agents in sorted(history.topics.items())
        for agent, known in sorted(agents.items())
    ]
    closed = sorted(history.closed.items())
    return ScoresReply(
        accuracy=(*overall, *by_topic),
        agreement=tuple(score for k, known in closed for score in agreement_scores(known.agreement, k)),
        unlabelled=tuple(score for k, known in closed for score in unlabelled_scores(known, k)),
        reset=reset,
    )
