"""What was learnt of agents, as it is told: how often each was right, and how often two agreed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.message import Name, Struct, Topic


class Score(Struct):
    """Of `asked` questions whose right answer became known an agent had `correct` right; of all that there
    were, or of those on one topic."""

    agent: Name
    topic: Topic | None = None
    correct: Annotated[int, Field(ge=0)]
    asked: Annotated[int, Field(ge=0)]


class AgentAgreement(Struct):
    """Of `both` questions of so many options that two agents answered, they answered `agreed` alike."""

    one: Name
    other: Name
    options: Annotated[int, Field(ge=2)]
    agreed: Annotated[int, Field(ge=0)]
    both: Annotated[int, Field(ge=0)]


class UnlabelledScore(Struct):
    """What is known of an agent without right answers, from questions of so many options.

    Of `asked` questions it gave the answer that isp chose to `with_isp`. `confusion` has a row for each
    option that may have been right, and in it how often the agent is expected to have said each option.
    """

    agent: Name
    options: Annotated[int, Field(ge=2)]
    with_isp: Annotated[int, Field(ge=0)]
    asked: Annotated[int, Field(ge=0)]
    confusion: tuple[tuple[float, ...], ...] = ()
