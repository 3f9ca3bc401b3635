"""The failure detector: which stages have fallen silent.

Silence is counted in looks of the watcher, not by the clock: a look that comes late counts hardly more than a
punctual one, since a watcher that does not get the processor does not hear either. And a stage whose beats
came late before, as on a starved host, is given twice the longest pause that it made lately.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.pipelines.plan import PipelinePlan

BEAT_INTERVAL_S = 0.25
TICK_S = 0.1
"""How often is looked."""
MOST_COUNTED_S = 2 * TICK_S
"""So much of the time between two looks counts as silence of the others; the rest is delay of one's own."""
SILENCE_S = 1.2
"""A stage that beats punctually, and has not been heard of for so long, is taken for dead."""
LONGEST_SILENCE_S = 5.0
"""One whose beats come late is, too, after so long."""
PAUSES = 2.0
"""A silence of so many times the longest pause of late is a death."""
FADING = 0.99
"""Weight of a pause after each further beat: half of it after 17 s."""
FIRST_BEAT_S = 6.0
"""So long a stage may take until it is heard of for the first time in a new assignment."""
MOST_LAG_S = 0.5
"""If the watcher itself slept for so long, silence says nothing of the others."""


@dataclass
class _Heard:
    """One stage: for how long it is silent, below 0 while it has time; and its longest pause of late."""

    silent_s: float = SILENCE_S - FIRST_BEAT_S
    pause_s: float = 0.0

    @property
    def limit_s(self) -> float:
        return min(max(SILENCE_S, PAUSES * self.pause_s), LONGEST_SILENCE_S)

    def beat(self, first: bool) -> None:
        pause_s = 0.0 if first else self.silent_s
        self.pause_s = max(pause_s, FADING * self.pause_s)
        self.silent_s = 0.0


class FailureDetector:
    """How long the stages of one plan have not been heard of, by this host's clock."""

    def __init__(self, plan: PipelinePlan, now_s: float) -> None:
        self.plan = plan
        self._heard = [_Heard() for _ in plan.stages]
        self._checked_s = now_s

    def follow(self, plan: PipelinePlan) -> None:
        """The plan has changed: who has a new place is given time, the others are listened to as before."""
        before, self.plan = self.plan, plan
        self._heard = [
            self._heard[number]
            if number < len(before.stages) and before.stages[number].instance == stage.instance
            else _Heard()
            for number, stage in enumerate(plan.stages)
        ]

    def heard(self, stage: int, instance: str, *, first: bool = False) -> None:
        """A stage has given a sign of life. The silence before the `first` one of a process was a death: it
        says nothing of how punctual that stage is."""
        if stage < len(self.plan.stages) and self.plan.stages[stage].instance == instance:
            self._heard[stage].beat(first)

    def works(self, stage: int) -> None:
        """Others have heard of a stage in its place, before this watcher came: so it need not be given the
        time that somebody has who comes to a new one."""
        self._heard[stage].silent_s = max(self._heard[stage].silent_s, 0.0)

    def silent(self, now_s: float) -> tuple[int, ...]:
        """The stages that are taken for dead. To be asked every TICK_S: a watcher that was asleep, or whose
        connection was, gives everybody time anew."""
        lag_s, self._checked_s = now_s - self._checked_s, now_s
        for heard in self._heard:
            heard.silent_s += min(lag_s, MOST_COUNTED_S)
        if lag_s > MOST_LAG_S:
            self.excuse()
        return tuple(stage for stage, heard in enumerate(self._heard) if heard.silent_s > heard.limit_s)

    def excuse(self) -> None:
        """Instances that were silent until now get their time anew."""
        for heard in self._heard:
            heard.silent_s = min(heard.silent_s, 0.0)
