"""Notices that a message between stages was lost: all of them rest, and yet a token is waited for."""

from __future__ import annotations

from schemas.pipelines.stages import StageBeat

RESTING_BEATS = 20
"""A message on its way arrives long before so many beats. Beats travel over the same broker and are made by
the same processes as frames: where a host is so busy that frames take longer, so do these."""


class Rest:
    """For how many beats in a row each stage of an epoch has had nothing to do, and has got nothing."""

    def __init__(self) -> None:
        self._beats: dict[int, int] = {}
        self._progress: dict[int, int] = {}

    def begin(self, stages: int) -> None:
        """From now on so many stages are listened to."""
        self._beats = dict.fromkeys(range(stages), 0)
        self._progress = {}

    def heard(self, beat: StageBeat) -> None:
        """Takes a beat of the epoch."""
        if beat.stage not in self._beats:
            return
        rests = beat.idle and self._progress.get(beat.stage) == beat.progress
        self._beats[beat.stage] = self._beats[beat.stage] + 1 if rests else 0
        self._progress[beat.stage] = beat.progress

    def lost(self, waits: bool) -> bool:
        """Whether all stages have rested for RESTING_BEATS while a token was waited for. To be asked often,
        with whether one is waited for now: rest while nothing was asked is no sign of anything."""
        if not waits:
            self.begin(len(self._beats))
        return bool(self._beats) and min(self._beats.values()) >= RESTING_BEATS
