"""The codec of scores: what was learnt of agents, in its stored form and as a reply to clients. Pure."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.ensembles.scores import AgentAgreement, Score, UnlabelledScore
from schemas.message import Struct
from schemas.replies import ScoresReply
from services.aggregator.scores.agreement import Agreement, Pair
from services.aggregator.scores.history import NO_HISTORY, AgentHistory, History, Unlabelled

UPDATES_KEPT = 128
"""How many updates a value knows again: more than can come while one of them is in doubt."""
DECIMALS = 4
"""Of expected counts: one question in ten thousand is less than they can tell."""


class FeedbackUpdate(Struct):
    """What the feedback on a request teaches, as it is kept while it is being counted."""

    request_id: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    topic: str | None = None
    strategies_right: tuple[str, ...] = ()
    strategies_wrong: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The form in which the bucket holds it."""
        return self.model_dump_json().encode()


class StoredHistory(Struct):
    """An agent's history as the bucket holds it; `counted` are the updates that came to it last.

    An update that is counted again, because nobody knew that it was, is found there.
    """

    correct: Annotated[int, Field(ge=0)] = 0
    asked: int = 0
    counted: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_more_right_than_asked(self) -> Self:
        _part_of("correct", self.correct, "asked", self.asked)
        return self

    def history(self) -> AgentHistory:
        """What it says."""
        return AgentHistory(self.correct, self.asked)


class StoredUnlabelled(Struct):
    """What questions of so many options tell without right answers, as the bucket holds it."""

    agreement: tuple[AgentAgreement, ...] = ()
    agents: tuple[UnlabelledScore, ...] = ()
    counted: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_more_than_there_were(self) -> Self:
        for pair in self.agreement:
            _part_of("agreed", pair.agreed, "both", pair.both)
        for agent in self.agents:
            _part_of("with_isp", agent.with_isp, "asked", agent.asked)
        return self


def _part_of(name: str, part: int, of_name: str, whole: int) -> None:
    if part > whole:
        raise ValueError(f"{name} is greater than {of_name}")


def short_id(update_id: str) -> str:
    """What is kept of an update's id: 64 bits of it."""
    return urlsafe_b64encode(blake2b(update_id.encode(), digest_size=8).digest()).decode().rstrip("=")


def history_from_bytes(data: bytes) -> AgentHistory:
    """What is known of an agent by its key's value; ValidationError (a ValueError) for what is no history."""
    return StoredHistory.model_validate_json(data).history()


def with_answer(stored: bytes | None, update_id: str, *, right: bool) -> bytes:
    """A history and one more question, in their stored form; the same history if it holds that update."""
    known = StoredHistory.model_validate_json(stored) if stored else StoredHistory()
    if stored and short_id(update_id) in known.counted:
        return stored
    after = known.history().after(right=right)
    counted = _with(known.counted, update_id)
    return StoredHistory(correct=after.correct, asked=after.asked, counted=counted).model_dump_json().encode()


def with_update(stored: bytes | None, update_id: str, update: Unlabelled) -> bytes:
    """What is stored of questions of K options, and one more update; the same if it holds that update."""
    counted = StoredUnlabelled.model_validate_json(stored).counted if stored else ()
    if stored and short_id(update_id) in counted:
        return stored
    known = unlabelled_from_bytes(stored) if stored else Unlabelled()
    known.add(update)
    return unlabelled_to_bytes(known, _with(counted, update_id))


def _with(counted: tuple[str, ...], update_id: str) -> tuple[str, ...]:
    return (*counted, short_id(update_id))[-UPDATES_KEPT:]


def unlabelled_to_bytes(known: Unlabelled, counted: tuple[str, ...] = ()) -> bytes:
    """The form in which the bucket holds it."""
    options = options_in(known)
    stored = StoredUnlabelled(
        agreement=agreement_scores(known.agreement, options),
        agents=unlabelled_scores(known, options),
        counted=counted,
    )
    return stored.model_dump_json().encode()


def unlabelled_from_bytes(data: bytes) -> Unlabelled:
    """The inverse of `unlabelled_to_bytes`, but for rounding; ValueError for anything else."""
    stored = StoredUnlabelled.model_validate_json(data)
    return unlabelled_of(stored.agreement, stored.agents)


def unlabelled_of(agreement: Iterable[AgentAgreement], agents: Iterable[UnlabelledScore]) -> Unlabelled:
    """What questions of one number of options tell, from what is told of it."""
    agents = tuple(agents)
    return Unlabelled(
        agreement={
            frozenset((each.one, each.other)): Agreement(each.agreed, each.both) for each in agreement
        },
        isp={each.agent: AgentHistory(each.with_isp, each.asked) for each in agents},
        confusions={
            each.agent: tuple(count for row in each.confusion for count in row)
            for each in agents
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
