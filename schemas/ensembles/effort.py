"""Effort: how many of an ensemble's members are asked before it is decided, and what that spared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.message import Name, Struct, Topic

Effort = Literal["exact", "bounded"]
"""Without it all members are asked at once. `exact` asks no more of them once nothing that the others could
say would change the decision; `bounded` once it is improbable that it would."""

Epsilon = Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
"""How probable it may be, at most, that all members together would have decided otherwise."""

Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""How probable it is that an answer is right, as votes and history tell."""

CascadeEnd = Literal["settled", "likely", "all", "deadline"]
"""Why no more were asked: the others could change nothing, it was improbable that they would, all members (or
a quorum) had answered, or the time was over."""


Way = Literal["single", "samples", "cascade", "full"]
"""How `auto` asks: the agent that is best on the topic, that one several times, members in waves until the
others could change nothing, or all at once."""


class AutoChoice(Struct):
    """The way that `auto` took, and why.

    `alone` is how often the agent `best` is expected to be right on the `topic`, `together` how often the
    vote of all is at least; null where too little is known.
    """

    way: Way
    why: str
    topic: Topic | None = None
    best: Name | None = None
    alone: Confidence | None = None
    together: Confidence | None = None


class Cascade(Struct):
    """Whom an ensemble with an `effort` asked, and what it spared.

    `waves` are the members that were asked, each wave at once and in the order of asking; the members in
    `spared` were asked nothing. `bound` is how probable it is, at most, that all members together would have
    given another answer: 0 if that is certain, null if the time was over before more could be known.
    `saved_calls` counts the spared members; `saved_tokens` is what they would have cost if each had cost what
    those who answered did on average, prompt included.
    """

    effort: Effort
    epsilon: Epsilon | None = None
    waves: tuple[tuple[Name, ...], ...]
    spared: tuple[Name, ...] = ()
    ended: CascadeEnd
    bound: Annotated[float, Field(ge=0, le=1)] | None = None
    saved_calls: Annotated[int, Field(ge=0)] = 0
    saved_tokens: Annotated[int, Field(ge=0)] = 0
