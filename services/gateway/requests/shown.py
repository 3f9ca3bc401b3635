"""What a client has been shown of a text that is still being generated."""

from __future__ import annotations

from schemas.errors import GenerationFailed
from schemas.replies import TokenChunk


class Shown:
    """The text and the thoughts of one answer, as far as they were sent.

    An HTTP client cannot take back what it has. Where a text was begun again after a failure and is
    another one, the stream ends with GenerationFailed.
    """

    def __init__(self) -> None:
        self.text = ""
        self.thinking = ""
        self._thought = ""
        self._attempt = 1

    def say(self, chunk: TokenChunk) -> str:
        """What a chunk adds to the text."""
        if chunk.restarted and self.text:
            raise begun_again()
        self.text += chunk.text
        return chunk.text

    def think(self, chunk: TokenChunk) -> str:
        """What a chunk adds to the thoughts; nothing while an attempt repeats what another one thought."""
        if not chunk.thinking:
            return ""
        if chunk.attempt > self._attempt:
            self._attempt, self._thought = chunk.attempt, ""
        self._thought += chunk.thinking
        if self.thinking.startswith(self._thought):
            return ""
        new = _rest(self._thought, self.thinking)
        self.thinking = self._thought
        return new

    def rest_of_text(self, whole: str) -> str:
        """What is still to be shown of the text."""
        return _rest(whole, self.text)

    def rest_of_thinking(self, whole: str) -> str:
        """What is still to be shown of the thoughts."""
        return _rest(whole, self.thinking)


def _rest(whole: str, shown: str) -> str:
    if not whole.startswith(shown):
        raise begun_again()
    return whole[len(shown) :]


def begun_again() -> GenerationFailed:
    """The error of a stream whose beginning does not hold any more."""
    return GenerationFailed(
        "the agent that wrote this text was lost, and the text that another one wrote differs: ask again"
    )
