"""A cascade: the members of an ensemble are asked in waves, until the answers are enough.

Nothing of it is kept beside the tasks and the answers in their streams. Who finds some of them there, for the
one before has died, takes all that were asked for one wave, and asks on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from schemas.commands import Gather
from schemas.ensembles.effort import Cascade as Told
from schemas.ensembles.effort import CascadeEnd
from schemas.replies import Answer, Decision
from services.aggregator.decide import confidence_of
from services.aggregator.effort.rule import MOST_WAVES, Rule
from services.aggregator.effort.scoring import Standing
from services.aggregator.strategies import Ballots, StrategyContext


class Members(Protocol):
    """The members of an ensemble, as a cascade asks them."""

    async def asked_before(self) -> Sequence[str]:
        """Those that another aggregator has asked."""
        ...

    async def ask(self, members: Sequence[str]) -> None:
        """Asks these, if they have not answered."""
        ...

    async def wait(self, until_s: float, enough: Callable[[], bool]) -> None:
        """Returns when all that were asked have answered, when it is `enough`, or at `until_s`."""
        ...

    def answered(self) -> dict[str, Answer]:
        """The answers that there are, by member."""
        ...

    def ballots(self) -> Ballots:
        """What was read from them."""
        ...


class Cascade:
    """Whom a Gather with an effort has asked so far, and what was decided when that was enough."""

    def __init__(self, gather: Gather, context: StrategyContext, now: Callable[[], float]) -> None:
        self._gather = gather
        self._now = now
        self._context = context
        self._rule = Rule(
            gather.strategies,
            gather.members,
            context,
            gather.epsilon if gather.effort == "bounded" else None,
            gather.costs if len(gather.costs) == len(gather.members) else (),
        )
        self._waves: list[tuple[str, ...]] = []
        self._looked_at: int | None = None
        self._bound: float | None = None
        self._ended: CascadeEnd = "deadline"
        self.counted: frozenset[str] | None = None
        self.decisions: tuple[Decision, ...] = ()

    async def run(self, members: Members, until_s: float) -> None:
        """Asks wave after wave, until the answers are enough, all have answered, or at `until_s`."""
        self._members = members
        if before := await members.asked_before():
            await self._ask(before)
        order = self._rule.order()
        while True:
            if self._waves:
                await members.wait(self._patience_s(until_s), self._is_enough)
            asked = {member for wave in self._waves for member in wave}
            unasked = [member for member in order if member not in asked]
            if self._is_enough() or not unasked or self._now() >= until_s:
                return
            await self._ask(self._rule.next_wave(self._standing(), unasked, len(self._waves) + 1))

    async def _ask(self, wave: Sequence[str]) -> None:
        self._waves.append(tuple(wave))
        await self._members.ask(wave)

    def _patience_s(self, until_s: float) -> float:
        """Until when the last wave is waited for: who is silent leaves a part of the time to each wave after
        it, and the last wave has all that is left."""
        if sum(map(len, self._waves)) == len(self._gather.members):
            return until_s
        now = self._now()
        return now + (until_s - now) / max(2, MOST_WAVES - len(self._waves) + 1)

    def _standing(self) -> Standing:
        answered, ballots = self._members.answered(), self._members.ballots().first
        outstanding = tuple(m for m in self._rule.order() if m not in answered)
        at_most = len(outstanding)
        if self._gather.quorum is not None:
            at_most = max(0, min(at_most, self._gather.quorum - len(ballots)))
        return Standing(ballots, outstanding, at_most, calls=bool(self._gather.tools))

    def _is_enough(self) -> bool:
        """Whether no more need be asked; what is decided then, from these answers, stands."""
        if self.counted is not None:
            return True
        answered = self._members.answered()
        if len(answered) == self._looked_at:
            return False
        self._looked_at = len(answered)
        standing = self._standing()
        bound = self._rule.enough(standing)
        if bound is None or (standing.at_most and self._doubts(standing)):
            return False
        self._bound = bound
        self._ended = "all" if not standing.at_most else "settled" if bound == 0 else "likely"
        self.counted = frozenset(answered)
        self.decisions = tuple(each.decision() for each in self._rule.decide(standing.ballots))
        return True

    def _doubts(self, standing: Standing) -> bool:
        """Whether the answers so far leave more doubt than the request allows: others may take it away."""
        wanted = self._gather.min_confidence
        if wanted is None:
            return False
        leader = self._rule.decide(standing.ballots)[0].answer
        return confidence_of(leader, standing.ballots, self._context) < wanted

    def told(self, answers: Iterable[Answer]) -> Told:
        """Whom it asked and what that spared, given the answers that count."""
        asked = {member for wave in self._waves for member in wave}
        spared = tuple(member for member in self._gather.members if member not in asked)
        costs = [a.prompt_tokens + a.generated_tokens for a in answers if a.error is None]
        return Told(
            effort=self._gather.effort or "exact",
            epsilon=self._gather.epsilon,
            waves=tuple(self._waves),
            spared=spared,
            ended=self._ended,
            bound=self._bound,
            saved_calls=len(spared),
            saved_tokens=round(len(spared) * sum(costs) / len(costs)) if costs else 0,
        )
