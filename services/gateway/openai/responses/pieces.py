"""A text in pieces that depend on nothing but the text: the same ones while it is generated, and ever after.

The events of a stream are numbered, and a client resumes from a number. The chunks that a model made are kept
for minutes, and a text that is begun again on another agent has others. So a piece is so many characters,
wherever the chunks of the text had their ends.
"""

from __future__ import annotations

PIECE_LENGTH = 4
"""About a token of English: a text is shown about as smoothly as it is generated."""


class Pieces:
    """One text while it grows."""

    def __init__(self) -> None:
        self.text = ""
        self._cut = 0

    def add(self, text: str) -> list[str]:
        """The pieces that are complete now that `text` has come."""
        self.text += text
        return self._cut_until(len(self.text) - len(self.text) % PIECE_LENGTH)

    def end(self) -> list[str]:
        """What is left, the last piece."""
        return self._cut_until(len(self.text))

    def _cut_until(self, end: int) -> list[str]:
        pieces = [
            self.text[start : min(start + PIECE_LENGTH, end)] for start in range(self._cut, end, PIECE_LENGTH)
        ]
        self._cut = max(self._cut, end)
        return pieces
