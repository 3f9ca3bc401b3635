"""Who of the stages has fallen silent."""

from __future__ import annotations

from schemas.pipelines import PipelinePlan

BEAT_INTERVAL_S = 0.25
SILENCE_S = 1.2
"""A stage that has not been heard of for so long is taken for dead."""
FIRST_BEAT_S = 6.0
"""So long a stage may take until it is heard of for the first time in a new assignment."""
MOST_LAG_S = 0.5
"""If the watcher itself slept for so long, silence says nothing of the others."""


class Pulse:
    """When the stages of one plan were last heard of, by this host's clock."""

    def __init__(self, plan: PipelinePlan, now_s: float) -> None:
        self.plan = plan
        self._heard_s = dict.fromkeys(range(len(plan.stages)), now_s + FIRST_BEAT_S - SILENCE_S)
        self._checked_s = now_s

    def follow(self, plan: PipelinePlan, now_s: float) -> None:
        """The plan has changed: who has a new place is given time, the others are listened to as before."""
        before = self.plan
        self.plan = plan
        first_s = now_s + FIRST_BEAT_S - SILENCE_S
        self._heard_s = {
            number: self._heard_s[number]
            if number < len(before.stages) and before.stages[number].instance == stage.instance
            else first_s
            for number, stage in enumerate(plan.stages)
        }

    def heard(self, stage: int, instance: str, now_s: float) -> None:
        """A stage has given a sign of life."""
        if stage < len(self.plan.stages) and self.plan.stages[stage].instance == instance:
            self._heard_s[stage] = now_s

    def silent(self, now_s: float) -> tuple[int, ...]:
        """The stages that are taken for dead. To be asked often: a watcher that was asleep, or whose
        connection was, gives everybody time anew."""
        lag_s, self._checked_s = now_s - self._checked_s, now_s
        if lag_s > MOST_LAG_S:
            self.excuse(now_s)
        return tuple(stage for stage, heard_s in self._heard_s.items() if now_s - heard_s > SILENCE_S)

    def excuse(self, now_s: float) -> None:
        """Whoever was not heard of until now is given time anew."""
        self._heard_s = {stage: max(heard_s, now_s) for stage, heard_s in self._heard_s.items()}
