"""Where a stream stands, as each of its events says in its `id`.

A client whose stream has broken sends its request again with the last id that it has, as `Last-Event-ID`, to
any gateway. Nothing is kept for that: the id tells the request, and how many characters of which text were
shown. So it does not matter in what pieces the text comes the second time, from the token stream or from the
result; a checksum tells whether it is the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from schemas.errors import InvalidRequest
from services.gateway.http.exchange import header_of

HEADER = "last-event-id"
FORM = re.compile(
    r"(?P<request>[A-Za-z0-9_-]{1,64}):(\d{1,6})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,4})\.([0-9a-f]{1,8})"
)


@dataclass(frozen=True)
class Place:
    """What has been shown of a request's stream: all before `choice`, and of that one so many characters of
    its thoughts and its text, so many tokens with their probabilities, and `closing` events after the text.
    `check` is a sum over these thoughts and this text."""

    request_id: str
    choice: int = 0
    thinking: int = 0
    text: int = 0
    tokens: int = 0
    closing: int = 0
    check: int = 0

    @classmethod
    def read(cls, text: str) -> Place:
        """The place that an event's id tells. InvalidRequest for what is no such id."""
        found = FORM.fullmatch(text.strip())
        if found is None:
            raise InvalidRequest(f"{HEADER}: it must be the id of an event of a stream", field=HEADER)
        choice, thinking, shown, tokens, closing = (int(number) for number in found.groups()[1:6])
        return cls(found["request"], choice, thinking, shown, tokens, closing, int(found[7], 16))


def place_of(request: Request) -> Place | None:
    """Where a request that is sent again goes on; None for one that begins."""
    told = header_of(request.scope, HEADER)
    return None if told is None else Place.read(told)
