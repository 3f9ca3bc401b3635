"""What a contestant (a strategy, an agent alone, a baseline) made of one question, and what that cost."""

from __future__ import annotations

from typing import Literal, NamedTuple

Group = Literal["strategy", "agent", "baseline"]


class Outcome(NamedTuple):
    """One contestant on one question of one repetition; a tuple, because there are very many of them.

    `answer` is None if it decided nothing, which is never right. `tie` says that it fell by lot. Of the
    `calls` answers that it is made from `unread` could not be read and `missing` did not come. `latency_s`
    is what a mesh without other work needs: agents answer side by side, rounds one after another, and the
    time in queues is left out.
    """

    contestant: str
    group: Group
    benchmark: str
    question_id: str
    topic: str
    repetition: int
    answer: str | None
    right: bool
    tie: bool
    calls: int
    tokens: int
    latency_s: float
    unread: int
    missing: int
    share: float | None = None
    margin: float | None = None
    note: str | None = None
