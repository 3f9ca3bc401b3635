"""Asks a call, or takes from earlier runs what is there of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from analysis.evaluation.asking.exchange import Exchange, exchange
from analysis.evaluation.asking.plan import Call, request_id
from analysis.evaluation.likelihood.texts import Scored
from analysis.evaluation.provenance.cache import AnswerCache, Kept, key_of
from schemas.ensembles.strategies import asked_for
from schemas.errors import ErrorBody
from schemas.replies import Answer, Result

Outcome = tuple[Result | ErrorBody, Scored | None]
Ask = Callable[[Call], Awaitable[Outcome]]


class CachedAsking:
    """Calls through a cache. `identities` has the hash of each agent's file, where it is known."""

    def __init__(self, cache: AnswerCache | None, identities: Mapping[str, str | None]) -> None:
        self._cache = cache
        self._identities = identities

    async def exchange_of(self, call: Call, ask: Ask) -> Exchange:
        """What came of a call. Of an ensemble only those members are asked of whom nothing is kept."""
        agents = call.ask.models or (call.agent,)
        kept = self._kept(call, agents)
        left = tuple(agent for agent in agents if agent not in kept)
        asked_at_s, started_s = time.time(), time.perf_counter()
        outcome: Outcome | None = None
        if left:
            outcome = await ask(_without(call, left))
            self._keep(call, left, outcome, asked_at_s, time.perf_counter() - started_s)
        wall_s = time.perf_counter() - started_s
        came, scored = _together(call, agents, kept, outcome)
        origins = {agent: each.request_id for agent, each in kept.items()}
        return exchange(call, agents, asked_at_s, wall_s, came, scored=scored, from_cache=origins)

    def _kept(self, call: Call, agents: Sequence[str]) -> dict[str, Kept]:
        """What is kept of each agent; of one that was asked more than the question all or nothing."""
        if self._cache is None:
            return {}
        found: dict[str, Kept] = {}
        for group in _groups(call, agents):
            key = key_of(call, group, self._identities)
            if key is not None and (kept := self._cache.get(key)) is not None:
                found |= dict.fromkeys(group, kept)
        return found

    def _keep(
        self, call: Call, asked: Sequence[str], outcome: Outcome, asked_at_s: float, wall_s: float
    ) -> None:
        """Keeps what came whole: of an ensemble each answer for itself, if no more than the question was
        asked."""
        came, scored = outcome
        if self._cache is None or not isinstance(came, Result) or came.error is not None:
            return
        for group in _groups(call, asked):
            key = key_of(call, group, self._identities)
            answers = tuple(answer for answer in came.answers if answer.agent in group)
            further = came.further_answers if asked_for(call.ask.strategies) else ()
            whole = len(answers) == len(group) and all(each.error is None for each in (*answers, *further))
            if key is None or not whole:
                continue
            # What the mesh decided with what it knew then is no part of an answer.
            result = came.model_copy(
                update={"answers": answers, "further_answers": further, "decisions": (), "text": None}
            )
            self._cache.put(
                key,
                Kept(
                    request_id=call.request_id,
                    asked_at_s=asked_at_s,
                    wall_s=wall_s,
                    result=result,
                    scored=scored,
                ),
            )


def of_earlier_runs(journal: Sequence[Exchange]) -> list[Exchange]:
    """The exchanges of a run, with `from_cache` naming only what other runs asked.

    An answer that this run took from another of its own requests, as a greedy repetition does, was timed
    under its load.
    """
    own = {each.request_id for each in journal}
    return [
        each.model_copy(
            update={
                "from_cache": {
                    agent: source for agent, source in each.from_cache.items() if source not in own
                }
            }
        )
        if each.from_cache
        else each
        for each in journal
    ]


def _groups(call: Call, agents: Sequence[str]) -> list[tuple[str, ...]]:
    """Whose answers are kept together: all agents', if they were asked more than the question."""
    if asked_for(call.ask.strategies):
        return [tuple(agents)]
    return [(agent,) for agent in agents]


def _without(call: Call, left: Sequence[str]) -> Call:
    """The same of those that are left, under an id of its own."""
    if not call.ask.models or tuple(left) == call.ask.models:
        return call
    ask = call.ask.model_copy(update={"models": tuple(left)})
    made_of = (call.request_id, *left)
    return Call(
        call.item, call.phase, call.sample, ask.model_copy(update={"request_id": request_id(made_of)})
    )


def _together(
    call: Call, agents: Sequence[str], kept: Mapping[str, Kept], outcome: Outcome | None
) -> tuple[Result | ErrorBody, Scored | None]:
    """The answers that are kept and those that came, as of one request."""
    if not kept and outcome is not None:
        return outcome
    came = outcome[0] if outcome is not None else None
    # An ensemble that was asked as a whole is kept as a whole, once for each of its members.
    of_agent: dict[str, Answer] = {
        answer.agent: answer for agent, each in kept.items() for answer in _own(each, agent)
    }
    of_agent |= {answer.agent: answer for answer in (came.answers if isinstance(came, Result) else ())}
    any_kept = next(iter(kept.values()))
    scored = any_kept.scored
    if scored is not None and call.continuation is not None:
        place = {"choice": call.continuation.choice, "true": call.continuation.true}
        scored = scored.model_copy(update=place)
    base = came if isinstance(came, Result) else any_kept.result
    result = base.model_copy(
        update={
            "request_id": call.request_id,
            "fingerprint": call.ask.fingerprint,
            "answers": tuple(of_agent[agent] for agent in agents if agent in of_agent),
            "missing": tuple(agent for agent in agents if agent not in of_agent),
        }
    )
    return result, scored


def _own(kept: Kept, agent: str) -> tuple[Answer, ...]:
    """The answers of what is kept, under the name that its file has now."""
    answers = kept.result.answers
    if len(answers) == 1:
        return (answers[0].model_copy(update={"agent": agent, "model": agent}),)
    return tuple(answer for answer in answers if answer.agent == agent)
