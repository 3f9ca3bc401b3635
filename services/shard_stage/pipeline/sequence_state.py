"""The state of a sequence at stage 0: what is known of its text, and how much of it is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from schemas.commands import Generate
from schemas.pipelines.activations import Frame, Speculation
from schemas.pipelines.stage_wire import Token
from schemas.pipelines.stages import SequenceStart
from schemas.requests.sampling import Sampling
from services.engine import Finished, Generation, TokenLogprob
from services.engine.decode.logprobs import Probability, with_texts
from services.engine.decode.sampler import REPEAT_LAST, TokenSampler, needs_said
from services.engine.model.model import Model, Tokens
from services.engine.prompt_reader import PreparedPrompt
from services.engine.sequence.generation import OnEvent
from services.engine.sequence.sequence import Sequence
from services.shard_stage.pipeline.drafts import Drafts


class SequenceState(Sequence):
    """A text whose tokens go through a pipeline. Nothing is sent twice in an epoch, and frames wait in `held`
    until `send_at` tokens are fed. It `follows` the text that had its slot before, with whose beginning it
    shares what is in the stages' cells. Its `drafts` are there where it is guessed ahead."""

    def __init__(
        self,
        number: int,
        command: Generate,
        prompt: PreparedPrompt,
        tokens: Tokens,
        sampler: TokenSampler,
        generation: Generation,
        on_event: OnEvent,
        acknowledge: str | None = None,
    ) -> None:
        """A text of which nothing has been generated yet. The last stage has a sampler of its own."""
        super().__init__(tokens, prompt.sampling, sampler, generation, on_event, prompt.form, command.origin)
        self.id = number
        self.command = command
        self.acknowledge = acknowledge
        self.began_at_s = time.time()
        self.send_at = 0
        self.chunk = 1
        self.draws = 0
        self.resumed = 0
        self.resumed_at = 0
        self.tokens_at_resume = -1
        self.started = False
        self.follows: int | None = None
        self.held: list[Frame] = []
        self.drafts: Drafts | None = None

    @property
    def ready(self) -> int:
        """As many as are sent on together."""
        return min(self.due, self.send_at - self.fed)

    @property
    def decodes(self) -> bool:
        """Not while frames are held back: these tokens are sent with them."""
        return super().decodes and not self.held

    @property
    def kept(self) -> int:
        """How many tokens the other stages have certainly evaluated: all but the newest, which came back."""
        if not self.started:
            return 0
        return min(self.fed, len(self.tokens) - 1 if self.has_decoded else self.resumed_at)

    def start(self, *, journal: bool) -> SequenceStart:
        """The start for the other stages; for the journal, with everything that a new stage 0 needs."""
        sampling, prompt = self.sampling, len(self.prompt)
        repeats = sampling.repeat_penalty != 1
        return SequenceStart(
            request_id=self.command.request_id,
            sampling=sampling,
            prompt_tokens=prompt,
            generated=tuple(self.tokens[prompt:]) if needs_said(sampling) else (),
            recent=tuple(self.tokens[:prompt][-REPEAT_LAST:]) if repeats else (),
            follows=None if journal else self.follows,
            draws=self.draws,
            resumed=self.resumed,
            command=self.command if journal else None,
            acknowledge=self.acknowledge if journal else None,
        )

    @property
    def has_decoded(self) -> bool:
        """Whether a token has come in this epoch."""
        return len(self.tokens) != self.tokens_at_resume

    def note_resumption(self) -> None:
        """Another epoch has come: counts those in a row that brought no token."""
        self.resumed = 0 if self.has_decoded else self.resumed + 1

    def resume_at(self, position: int, chunk: int) -> None:
        """In a new epoch the tokens from `position` on are fed again, `chunk` at a time."""
        self.tokens_at_resume = len(self.tokens)
        self.fed = self.resumed_at = position
        self.chunk, self.started = chunk, False
        self.send_at = min(position + chunk, len(self.tokens))
        self.held.clear()
        if self.drafts is not None:
            self.drafts.reset()

    @property
    def guessed(self) -> int:
        """How many guessed tokens are on their way."""
        return 0 if self.drafts is None else len(self.drafts.sent)

    @property
    def speculation(self) -> Speculation | None:
        """What its next frame says of guesses, if it is of a certain token: nothing before one was wrong."""
        if self.drafts is None or not self.drafts.attempt:
            return None
        return Speculation(self.drafts.attempt, len(self.tokens))

    def guess(self, most: int, context_tokens: int) -> int | None:
        """A token to send after those that were sent, while `most` guesses may be on their way: None where
        there is no guess, or its successor would be of no use."""
        rows_on_their_way = self.has_decoded and not self.due and not self.held
        if self.drafts is None or not rows_on_their_way:
            return None
        guessed = len(self.drafts.sent)
        is_short = self.generated + guessed + 1 >= self.sampling.max_tokens
        if is_short or len(self.tokens) + guessed >= context_tokens:
            return None
        return self.drafts.next(self.tokens, most)

    def released(self) -> list[Frame]:
        """The frames to send now: those held back, joined to one."""
        if self.fed < self.send_at or not self.held:
            return []
        frame, self.held = joined(self.held), []
        self.send_at = min(self.fed + self.chunk, len(self.tokens))
        return [frame]

    @property
    def finished(self) -> Finished | None:
        """The outcome, or None while there is none."""
        return self.generation.finished


def logprob_of(model: Model, token: Token, sampling: Sampling) -> Callable[[int], TokenLogprob] | None:
    """The probability of a token from the last stage, where it was requested."""
    found = Probability(token.logprob, token.alternatives)
    return (lambda number: with_texts(model, number, found)) if sampling.logprobs else None


def resume_position(tokens: int, cells: Iterable[int], *, windowed: bool) -> int:
    """From which token on a sequence of `tokens` known ones is fed again, given how many each stage holds.

    The last known token is always fed again: its successor has not arrived. Where layers have sliding
    windows, cells before the window are gone, so a stage can go back by no more than a token.
    """
    held = list(cells)
    position = min(tokens - 1, *held)
    return 0 if windowed and max(held) > position + 1 else position


def joined(frames: list[Frame]) -> Frame:
    """Consecutive frames of a sequence as one."""
    if len(frames) == 1:
        return frames[0]
    first, last = frames[0], frames[-1]
    return Frame(
        first.epoch,
        first.pipeline,
        first.stage,
        first.sequence,
        first.position,
        sum(frame.count for frame in frames),
        first.width,
        first.dtype,
        b"".join(frame.payload for frame in frames),
        last.flags,
    )
