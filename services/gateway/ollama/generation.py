"""What comes of a chat or a prompt: one object, or a stream of them.

Both interfaces differ only in where a piece of text stands: `message.content` of a chat, `response` of a
prompt. The last object has the counts and the durations, in nanoseconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from schemas.errors import AnswersUnreadable
from schemas.replies import Answer, Result, TokenChunk
from schemas.requests.chat import ToolCall
from services.gateway.ollama.messages import call_object
from services.gateway.ollama.replies import line, now
from services.gateway.requests.outcome import Choice, choices, pieces, usage
from services.gateway.requests.shown import Shown

Shape = Callable[[str, str, Sequence[ToolCall]], dict[str, Any]]
"""Text, thoughts and calls, as one of the two interfaces has them."""


def chat_shape(text: str, thinking: str = "", calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
    """A message. Its `content` is always there: clients read it without asking."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = [call_object(call, index) for index, call in enumerate(calls)]
    return {"message": message}


def prompt_shape(text: str, thinking: str = "", _calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
    """A text that goes on."""
    return {"response": text, **({"thinking": thinking} if thinking else {})}


class Lines:
    """The objects of one reply. `model` is the name by which the client knows it."""

    def __init__(self, model: str, shape: Shape, *, logprobs: int | None, with_members: bool) -> None:
        self._model = model
        self._shape = shape
        self._logprobs = logprobs
        self._with_members = with_members
        self._told = 0

    def piece(self, text: str = "", thinking: str = "", tokens: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """A piece of a text; without anything a sign of life."""
        fields = {**self._head(), **self._shape(text, thinking, ()), "done": False}
        self._told += len(tokens)
        return line(fields | self._probabilities(tokens))

    def whole(self, result: Result) -> dict[str, Any]:
        """The only object of a reply that does not stream."""
        choice = self._choice(result)
        said = self._shape(choice.text, choice.thinking or "", choice.tool_calls)
        return {**self._head(), **said, **ending(result, choice), **self._probabilities(choice.logprobs)}

    async def stream(self, replies: AsyncIterator[TokenChunk | Result]) -> AsyncGenerator[bytes, None]:
        """All objects of a reply that streams."""
        shown = Shown()
        async for reply in replies:
            if isinstance(reply, Result):
                for last in self._rest(reply, shown):
                    yield last
                return
            thought, text = shown.think(reply), shown.say(reply)
            if thought or text:
                yield self.piece(text, thought, reply.logprobs)

    def _rest(self, result: Result, shown: Shown) -> Iterator[bytes]:
        choice = self._choice(result)
        if thought := shown.rest_of_thinking(choice.thinking or ""):
            yield self.piece(thinking=thought)
        for text in pieces(shown.rest_of_text(choice.text)):
            yield self.piece(text)
        if choice.tool_calls:
            yield line({**self._head(), **self._shape("", "", choice.tool_calls), "done": False})
        untold = self._probabilities(choice.logprobs[self._told :])
        yield line({**self._head(), **self._shape("", "", ()), **ending(result, choice), **untold})

    def _choice(self, result: Result) -> Choice:
        if result.text is None:
            raise AnswersUnreadable(
                "the members of the ensemble have answered, and no decision could be read"
            )
        return choices(result, with_members=self._with_members)[0]

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": now()}

    def _probabilities(self, tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self._logprobs is None or not tokens:
            return {}
        return {"logprobs": [self._token(token) for token in tokens]}

    def _token(self, token: Mapping[str, Any]) -> dict[str, Any]:
        top = [ranked(other) for other in (token.get("top") or ())[: self._logprobs]]
        return {**ranked(token), "top_logprobs": top}


def ranked(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token and how probable it was."""
    text = str(token["text"])
    return {"token": text, "logprob": token["logprob"], "bytes": list(text.encode())}


def ending(result: Result, choice: Choice) -> dict[str, Any]:
    """What the last object says of a text: sums over all who took part, and the time from end to end."""
    answers = (*result.answers, *result.further_answers)
    used = usage(result)

    def total(duration: str) -> int:
        return sum(_duration(answer, duration) for answer in answers)

    return {
        "done": True,
        "done_reason": "length" if choice.cut else "stop",
        "total_duration": max(0, round((result.completed_at_s - result.accepted_at_s) * 1e9)),
        "load_duration": total("load_duration_ns"),
        "prompt_eval_count": used.prompt_tokens,
        "prompt_eval_duration": total("prompt_eval_duration_ns"),
        "eval_count": used.generated_tokens,
        "eval_duration": total("eval_duration_ns"),
    }


def _duration(answer: Answer, name: str) -> int:
    duration: int = getattr(answer.timings, name)
    return duration
