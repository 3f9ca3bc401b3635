"""Dead letters: messages that no service could work on, and what an operator does with them.

A request has one result, for ever: that of a dead one is an error. So what is retried is asked again as a new
request, which has an id and a result of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.commands import Waypoint
from schemas.message import Act, Message, Name, OwnedId, Struct, field_error
from schemas.requests.tenants import TenantName

MOST_LETTERS = 1_000
LetterKind = Literal["generate", "gather", "summarize", "unreadable"]
Sequence = Annotated[int, Field(ge=1)]


class ManageDeadLetters(Message):
    """An operator lists the dead letters, looks at one, has one worked on again, or drops one.

    `list` gives at most `limit` letters stored after `after_sequence`, the oldest first; with `tenant` only
    those of its requests. The others take the `sequence` of a letter, which the list says.
    """

    action: Literal["list", "show", "retry", "drop"] = "list"
    sequence: Sequence | None = None
    after_sequence: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_LETTERS)] = 100
    tenant: TenantName | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageDeadLetters:
        if (self.action == "list") != (self.sequence is None):
            raise field_error("sequence", "show, retry and drop, and nothing else, need a letter's number")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return Act(self.action, str(self.sequence)) if self.action in ("retry", "drop") else None


class DeadLetter(Struct):
    """A message that could not be worked on.

    `service` gave it up, at `died_at_s` by the broker's clock, and `reason` says why. A command says which
    `models` it was for; with `part_of` it was one step of a request, whose result came from there. `content`
    is the message as it was, or its beginning, only where one letter is asked for.
    """

    sequence: Sequence
    died_at_s: float
    service: str
    request_id: OwnedId
    reason: str
    letter: LetterKind
    models: tuple[Name, ...] = ()
    part_of: Waypoint | None = None
    size_bytes: Annotated[int, Field(ge=0)]
    content: str | None = None


class DeadLettersReply(Message):
    """The letters that a request concerns, as they were before it.

    `more_after` is where to go on, if there are more than were asked for or than one message carries.
    `retried_as` is the request that a retried letter has become.
    """

    kind: Literal["dead_letters"] = "dead_letters"
    letters: tuple[DeadLetter, ...] = ()
    more_after: int | None = None
    retried_as: OwnedId | None = None
