"""What a contestant (a strategy, an agent alone, a baseline) made of one question, and what that cost."""

from __future__ import annotations

from typing import Literal, NamedTuple

Group = Literal["strategy", "agent", "baseline"]


class Outcome(NamedTuple):
    """One contestant on one question of one repetition; a tuple, because there are very many of them.

    `answer` is None if it decided nothing, which is never right. `tie` says that it fell by lot;
    `expected` is then the chance to be right over all lots, and otherwise 1 or 0: it is what is scored.
    Of the `calls` answers that it is made from, those of all rounds, `unread` could not be read and
    `missing` did not come. `fell_back` says of a strategy other than the majority whether it had nothing
    but votes to go by, and so decided as the majority does; None where all answers agreed, or where that
    means nothing. `template` is what the question was made from, if it says so. `confidence` is how
    probable it is that a strategy's answer is right, as the votes and what the questions before have
    shown tell. `mesh_answer` is what the mesh decided by this strategy when it was asked, with its own
    history and lots, and `mesh_agrees` whether that is the same; None where it was not asked to.
    `latency_s` is what a mesh without other work needs: agents answer side by side, rounds one after
    another, and the time in queues is left out. It is None where the answers came under another load than
    all others' did, or come from an earlier run (`cached`).
    """

    contestant: str
    group: Group
    benchmark: str
    question_id: str
    topic: str
    repetition: int
    answer: str | None
    right: bool
    expected: float
    tie: bool
    calls: int
    tokens: int
    latency_s: float | None
    unread: int
    missing: int
    share: float | None = None
    margin: float | None = None
    note: str | None = None
    fell_back: bool | None = None
    template: str = ""
    confidence: float | None = None
    mesh_answer: str | None = None
    mesh_agrees: bool | None = None
    cached: bool = False
