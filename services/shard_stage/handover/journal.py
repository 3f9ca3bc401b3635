"""Reads the journal: the sequences that the stage 0 before has left, as starts, tokens and ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError

from schemas.pipelines.activations import Frame
from schemas.pipelines.stage_wire import Item, Outcome, Start, Token
from schemas.pipelines.stages import SequenceStart


@dataclass
class UnfinishedSequence:
    """A sequence that has begun and not ended, with its tokens by position. `has_decoded`: one has come
    since the last start."""

    id: int
    start: SequenceStart
    has_decoded: bool = False
    tokens: dict[int, Token] = field(default_factory=dict)

    def note(self, token: Token) -> None:
        """Takes a token; one that is known already is none."""
        self.has_decoded = self.has_decoded or token.position not in self.tokens
        self.tokens.setdefault(token.position, token)

    @property
    def generated(self) -> list[Token]:
        """The tokens after the prompt, as far as none is missing."""
        found: list[Token] = []
        while (token := self.tokens.get(self.start.prompt_tokens + len(found))) is not None:
            found.append(token)
        return found


class Journal:
    """Takes what was published to stage 0, of any epochs, in its order."""

    def __init__(self, pipeline: int) -> None:
        self._pipeline = pipeline
        self._left: dict[int, UnfinishedSequence] = {}

    def take(self, item: Item) -> None:
        """Takes the next item."""
        match item:
            case Start() if item.pipeline == self._pipeline:
                self._begin(item)
            case Token() if item.outcome is Outcome.TOKEN and item.sequence in self._left:
                self._left[item.sequence].note(item)
            case Frame() if item.count == 0:
                self._left.pop(item.sequence, None)

    def _begin(self, start: Start) -> None:
        try:
            body = SequenceStart.model_validate_json(start.body)
        except ValidationError:
            return
        if body.command is not None:
            left = self._left.setdefault(start.sequence, UnfinishedSequence(start.sequence, body))
            left.start, left.has_decoded = body, False

    @property
    def left(self) -> tuple[UnfinishedSequence, ...]:
        """The sequences that have not ended."""
        return tuple(self._left.values())
