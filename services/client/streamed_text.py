"""The streamed texts of each agent: what the caller has had of them, and what comes next.

Whatever happens on the way, the texts of the chunks that a client gets, joined from the last one that says
`restarted`, are the text of the result, and so is their thinking: pieces that were lost come with the
result, and a text that is generated anew is shown from where it differs. Where an agent writes several
texts (`sample`) this holds for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.replies import Answer, CacheUse, Result, Sample, TokenChunk
from schemas.requests.chat import ToolCall


@dataclass(frozen=True)
class _Written:
    """What there is of a text: itself, the thinking before it, the calls in it."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()

    def __add__(self, chunk: TokenChunk) -> _Written:
        return _Written(
            self.text + chunk.text, self.thinking + (chunk.thinking or ""), self.calls + chunk.tool_calls
        )

    def begins_with(self, other: _Written) -> bool:
        """Whether the other is a beginning of it."""
        return (
            self.text.startswith(other.text)
            and self.thinking.startswith(other.thinking)
            and self.calls[: len(other.calls)] == other.calls
        )

    def after(self, other: _Written) -> _Written:
        """What comes after a beginning of it."""
        return _Written(
            self.text[len(other.text) :],
            self.thinking[len(other.thinking) :],
            self.calls[len(other.calls) :],
        )


NOTHING = _Written()


@dataclass
class _Text:
    """One text: what was shown, and what its newest attempt has said so far."""

    shown: _Written = NOTHING
    said: _Written = NOTHING


@dataclass
class _Agent:
    """One agent's texts, whose chunks are counted together."""

    texts: dict[int, _Text] = field(default_factory=dict)
    attempt: int = 1
    next_index: int = 0
    broken: bool = False  # a piece is missing, so nothing is shown until it is found

    def begin_anew(self, attempt: int) -> None:
        """A later attempt writes all texts from their beginnings."""
        self.attempt, self.next_index, self.broken = attempt, 0, False
        for text in self.texts.values():
            text.said = NOTHING


class StreamedText:
    """All texts of one request. `sequence` is the last number in the stream that was seen."""

    def __init__(self) -> None:
        self.sequence = 0
        self._agents: dict[str, _Agent] = {}
        self._looked_for: set[tuple[str, int]] = set()
        self._missing = False

    def take(self, chunk: TokenChunk) -> TokenChunk | None:
        """A chunk as it is to be shown: one that is known shows nothing, and a text begun again only from
        where it differs."""
        if chunk.sequence is not None:
            self.sequence = chunk.sequence
        agent = self._agents.get(chunk.agent)
        if agent is None:
            agent = self._agents[chunk.agent] = _Agent()
        if chunk.attempt > agent.attempt:
            agent.begin_anew(chunk.attempt)
        if chunk.attempt < agent.attempt or chunk.index < agent.next_index:
            return None
        if chunk.index > agent.next_index:
            self._miss(chunk.agent, agent)
        if agent.broken:
            return None
        agent.next_index += 1
        text = agent.texts.get(chunk.sample)
        if text is None:
            text = agent.texts[chunk.sample] = _Text()
        if text.said is text.shown:  # nothing is repeated: what is new is the chunk
            text.said = text.shown = text.said + chunk
            return chunk
        text.said += chunk
        return self._shown(chunk, text)

    def _shown(self, chunk: TokenChunk, text: _Text) -> TokenChunk | None:
        """What is new of a text; all of it, if it is not what was shown before."""
        if text.said.begins_with(text.shown):
            new, restarted = text.said.after(text.shown), False
        elif text.shown.begins_with(text.said) and not chunk.done:
            return None  # begun again, and so far the same
        else:
            new, restarted = text.said, True
        text.shown = text.said
        if new == NOTHING and not chunk.done and not restarted:
            return None if NOTHING + chunk != NOTHING else chunk
        return chunk.model_copy(update={**_fields(new), "restarted": restarted})

    def _miss(self, name: str, agent: _Agent) -> None:
        """A piece is missing. The stream may have it: it is read once more from its beginning."""
        agent.broken = True
        if (name, agent.attempt) not in self._looked_for:
            self._looked_for.add((name, agent.attempt))
            self._missing, self.sequence = True, 0

    def missing(self) -> bool:
        """Whether the stream is to be read again, now that a piece is missing; says so once."""
        missing, self._missing = self._missing, False
        if missing:
            for agent in self._agents.values():
                agent.broken = False
        return missing

    def rest(self, result: Result) -> list[TokenChunk]:
        """What is still to be shown, now that the texts are known."""
        answers = {answer.agent: answer for answer in result.answers if answer.error is None}
        if result.topology == "chain":
            last = result.answers[-1].agent if result.answers else None
            answers = {agent: answer for agent, answer in answers.items() if agent == last}
        return [chunk for answer in answers.values() for chunk in self._rest_of(answer, result.cache)]

    def _rest_of(self, answer: Answer, cache: CacheUse | None) -> Iterator[TokenChunk]:
        agent = self._agents.setdefault(answer.agent, _Agent())
        for sample, whole in enumerate([_whole(answer), *map(_whole, answer.samples)]):
            text = agent.texts.setdefault(sample, _Text())
            if text.shown == whole:
                continue
            restarted = not whole.begins_with(text.shown)
            new = whole if restarted else whole.after(text.shown)
            text.shown = whole
            yield TokenChunk(
                request_id=answer.request_id,
                agent=answer.agent,
                index=agent.next_index,
                attempt=agent.attempt,
                sample=sample,
                restarted=restarted,
                text=new.text,
                thinking=new.thinking or None,
                tool_calls=new.calls,
                cache=cache,
            )


def _whole(answer: Answer | Sample) -> _Written:
    return _Written(answer.text, answer.thinking or "", answer.tool_calls)


def _fields(new: _Written) -> dict[str, object]:
    return {"text": new.text, "thinking": new.thinking or None, "tool_calls": new.calls}
