"""The events of a response's stream, numbered so that they are the same on any gateway, at any time.

They depend on the record, the texts and the result alone: `think` and `say` take the texts as they come, in
whatever chunks, and `end` adds what is missing. Called alone, `end` makes the whole stream anew. The order is
the one that the official client insists on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.errors import ErrorBody
from schemas.replies import Result
from schemas.requests.responses import ResponseRecord
from services.gateway.openai.replying.outcome import choices, json_arguments
from services.gateway.openai.responses import items
from services.gateway.openai.responses.identity import response_id
from services.gateway.openai.responses.pieces import Pieces
from services.gateway.openai.responses.response_object import failed, finished, unfinished

Event = dict[str, Any]
ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}


class TextChanged(Exception):
    """Raised when a text that was shown in part is not the text of the result."""


class ResponseEvents:
    """The stream of one response."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record
        self._id = response_id(record)
        self._number = 0
        self._thoughts = Pieces()
        self._text = Pieces()
        self._thinks = False  # the reasoning item is open
        self._speaks = False  # the message is open
        self._done: list[items.Item] = []

    def start(self) -> list[Event]:
        """The first two events."""
        response = unfinished(self._record)
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def think(self, text: str) -> list[Event]:
        """What the model thinks, a piece of it."""
        return list(self._think(text)) if text else []

    def say(self, text: str) -> list[Event]:
        """What the model says, a piece of it."""
        return list(self._say(text)) if text else []

    def end(self, result: Result) -> list[Event]:
        """All that is missing. TextChanged if what was shown is not how the result begins."""
        if result.error is not None:
            return [self.failure(result.error, result.completed_at_s)]
        choice = choices(result)[0]
        events = self.think(_rest(choice.thinking or "", self._thoughts.text))
        events += self._end_thoughts()
        events += self.say(_rest(choice.text, self._text.text))
        if self._speaks or not choice.tool_calls:
            events += self._end_text()
        for number, call in enumerate(choice.tool_calls):
            events += self._call(number, call.id, call.name, json_arguments(call.arguments))
        response = finished(self._record, result)
        return [*events, self._event(ENDINGS[response["status"]], response=response)]

    def failure(self, error: ErrorBody, at_s: float) -> Event:
        """The last event of a response that has come to nothing."""
        response = failed(self._record, error, at_s)
        return self._event("response.failed", response=response)

    def _think(self, text: str) -> Iterator[Event]:
        if not self._thinks:
            self._thinks = True
            yield self._added(items.reasoning(self._id, "", "in_progress"))
        for piece in self._thoughts.add(text):
            yield self._thought(piece)

    def _thought(self, piece: str) -> Event:
        return self._event(
            "response.reasoning_text.delta", item_id=f"rs_{self._id}", **self._place(), delta=piece
        )

    def _end_thoughts(self) -> Iterator[Event]:
        if not self._thinks:
            return
        self._thinks = False
        for piece in self._thoughts.end():
            yield self._thought(piece)
        item = items.reasoning(self._id, self._thoughts.text)
        yield self._event(
            "response.reasoning_text.done", item_id=item["id"], **self._place(), text=self._thoughts.text
        )
        yield self._item_done(item)

    def _say(self, text: str) -> Iterator[Event]:
        yield from self._begin_text()
        for piece in self._text.add(text):
            yield self._said(piece)

    def _begin_text(self) -> Iterator[Event]:
        if self._speaks:
            return
        yield from self._end_thoughts()
        self._speaks = True
        item = items.message(self._id, None, "in_progress")
        yield self._added(item)
        yield self._event(
            "response.content_part.added", item_id=item["id"], **self._place(), part=items.text_part("")
        )

    def _said(self, piece: str) -> Event:
        return self._event(
            "response.output_text.delta",
            item_id=f"msg_{self._id}",
            **self._place(),
            delta=piece,
            logprobs=[],
        )

    def _end_text(self) -> Iterator[Event]:
        yield from self._begin_text()
        for piece in self._text.end():
            yield self._said(piece)
        item = items.message(self._id, self._text.text)
        where = {"item_id": item["id"], **self._place()}
        yield self._event("response.output_text.done", **where, text=self._text.text, logprobs=[])
        yield self._event("response.content_part.done", **where, part=items.text_part(self._text.text))
        yield self._item_done(item)

    def _call(self, number: int, call_id: str, name: str, arguments: str) -> Iterator[Event]:
        item = items.function_call(self._id, number, call_id, name, "", "in_progress")
        yield self._added(item)
        where = {"item_id": item["id"], "output_index": len(self._done)}
        yield self._event("response.function_call_arguments.delta", **where, delta=arguments)
        yield self._event("response.function_call_arguments.done", **where, name=name, arguments=arguments)
        yield self._item_done(items.function_call(self._id, number, call_id, name, arguments))

    def _added(self, item: items.Item) -> Event:
        return self._event("response.output_item.added", output_index=len(self._done), item=item)

    def _item_done(self, item: items.Item) -> Event:
        event = self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)
        return event

    def _place(self) -> dict[str, int]:
        return {"output_index": len(self._done), "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event


def _rest(whole: str, shown: str) -> str:
    """What is still to be shown of a text."""
    if not whole.startswith(shown):
        raise TextChanged
    return whole[len(shown) :]
