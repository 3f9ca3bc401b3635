"""How often each agent was right: what the weights of a vote are learnt from.

Predict first, update after: a request is decided with the histories as they stood before it, and
only then does its feedback change them, so no agent is ever judged by an answer it was weighted with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.message import Part


class AgentHistory(Part):
    """`asked` questions whose right answer became known, of which an agent had `correct` right.

    Questions on which it abstained are in neither. The JSON form is the value of the agent's key
    in the scores bucket.
    """

    correct: Annotated[int, Field(ge=0)] = 0
    asked: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _no_more_right_than_asked(self) -> Self:
        if self.correct > self.asked:
            raise ValueError("correct is greater than asked")
        return self

    def after(self, *, right: bool) -> AgentHistory:
        """This history and one more question."""
        return AgentHistory(correct=self.correct + right, asked=self.asked + 1)

    def to_bytes(self) -> bytes:
        """The form in which the bucket holds it."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AgentHistory:
        """The inverse of `to_bytes`; ValueError for anything else."""
        return cls.model_validate_json(data)


NO_HISTORY = AgentHistory()


def judge(answers: Mapping[str, str | None], correct: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The agents that were right and those that were wrong, given the normalised answers of all.

    `correct` is normalised as the answers were. Who abstained (None) is neither right nor wrong.
    """
    right = tuple(agent for agent, answer in answers.items() if answer == correct)
    wrong = tuple(agent for agent, answer in answers.items() if answer not in (None, correct))
    return right, wrong
