"""The streamed text of each agent: what the caller has had of it, and what comes next.

Whatever happens on the way, the texts of the chunks that a client gets, joined from the last one that says
`restarted`, are the text of the result: pieces that were lost come with the result, and a text that is
generated anew is shown from where it differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.replies import Result, TokenChunk


@dataclass
class _Text:
    """One agent's text: what was shown, and what its newest attempt has said so far."""

    shown: str = ""
    said: str = ""
    attempt: int = 1
    next_index: int = 0
    broken: bool = False  # a piece is missing, so nothing is shown until it is found


class StreamedText:
    """All texts of one request. `sequence` is the last number in the stream that was seen."""

    def __init__(self) -> None:
        self.sequence = 0
        self._texts: dict[str, _Text] = {}
        self._looked_for: set[tuple[str, int]] = set()
        self._missing = False

    def take(self, chunk: TokenChunk) -> TokenChunk | None:
        """A chunk as it is to be shown: one that is known shows nothing, and a text begun again only from
        where it differs."""
        if chunk.sequence is not None:
            self.sequence = chunk.sequence
        text = self._texts.setdefault(chunk.agent, _Text())
        if chunk.attempt > text.attempt:
            text.attempt, text.said, text.next_index, text.broken = chunk.attempt, "", 0, False
        if chunk.attempt < text.attempt or chunk.index < text.next_index:
            return None
        if chunk.index > text.next_index:
            self._miss(chunk.agent, text)
        if text.broken:
            return None
        text.next_index += 1
        text.said += chunk.text
        return self._shown(chunk, text)

    def _shown(self, chunk: TokenChunk, text: _Text) -> TokenChunk | None:
        """What is new of a text; all of it, if it is not what was shown before."""
        if text.said.startswith(text.shown):
            new, restarted = text.said[len(text.shown) :], False
        elif text.shown.startswith(text.said) and not chunk.done:
            return None  # begun again, and so far the same
        else:
            new, restarted = text.said, True
        text.shown = text.said
        if not new and not chunk.done and not restarted:
            return None if chunk.text else chunk
        return chunk.model_copy(update={"text": new, "restarted": restarted})

    def _miss(self, agent: str, text: _Text) -> None:
        """A piece is missing. The stream may have it: it is read once more from its beginning."""
        text.broken = True
        if (agent, text.attempt) not in self._looked_for:
            self._looked_for.add((agent, text.attempt))
            self._missing, self.sequence = True, 0

    def missing(self) -> bool:
        """Whether the stream is to be read again, now that a piece is missing; says so once."""
        missing, self._missing = self._missing, False
        if missing:
            for text in self._texts.values():
                text.broken = False
        return missing

    def rest(self, result: Result) -> list[TokenChunk]:
        """What is still to be shown, now that the texts are known."""
        texts = {answer.agent: answer.text for answer in result.answers if answer.error is None}
        if result.topology == "chain":
            last = result.answers[-1].agent if result.answers else None
            texts = {agent: text for agent, text in texts.items() if agent == last}
        return [chunk for agent, text in texts.items() if (chunk := self._rest_of(agent, text, result))]

    def _rest_of(self, agent: str, whole: str, result: Result) -> TokenChunk | None:
        text = self._texts.setdefault(agent, _Text())
        if text.shown == whole:
            return None
        restarted = not whole.startswith(text.shown)
        new = whole if restarted else whole[len(text.shown) :]
        index, text.shown = text.next_index, whole
        return TokenChunk(
            request_id=result.request_id,
            agent=agent,
            index=index,
            text=new,
            attempt=text.attempt,
            restarted=restarted,
        )
