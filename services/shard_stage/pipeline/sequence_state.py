"""The state of a sequence at stage 0: what is known of its text, and how much of it is on its way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from schemas.activations import Frame
from schemas.commands import Generate
from schemas.sampling import Sampling
from schemas.stage_wire import Token
from schemas.stages import SequenceStart
from services.engine import Finished, Generation, RankedToken, TokenLogprob
from services.engine.decode.sampler import REPEAT_LAST, needs_said, new_sampler
from services.engine.model.model import Model, Tokens
from services.engine.sequence import sequence as engine_sequence
from services.engine.sequence.answer_reader import AnswerForm
from services.engine.sequence.generation import OnEvent

Said = Literal["goes_on", "finished"]


@dataclass
class SequenceState:
    """`tokens` are the prompt's and the generated ones. `fed` of them have gone into the pipeline, since
    nothing is sent twice in an epoch. Frames wait in `held` until `send_at` tokens are fed."""

    id: int
    command: Generate
    tokens: list[int]
    prompt_tokens: int
    text: engine_sequence.Sequence
    acknowledge: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    began_at_s: float = field(default_factory=time.time)
    slot: int = -1
    fed: int = 0
    send_at: int = 0
    chunk: int = 1
    draws: int = 0
    resumed: int = 0
    resumed_at: int = 0
    tokens_at_resume: int = -1
    started: bool = False
    held: list[Frame] = field(default_factory=list)

    @property
    def due(self) -> int:
        """How many known tokens have not been fed."""
        return len(self.tokens) - self.fed

    @property
    def speaks(self) -> bool:
        """Whether the next step of this sequence is a single token."""
        return self.due == 1 and self.fed > 0 and not self.held

    @property
    def generated(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self.prompt_tokens :]

    def start(self, *, journal: bool) -> SequenceStart:
        """What the other stages have to know; in the journal, all that a new stage 0 has to."""
        sampling = self.sampling
        repeats = sampling.repeat_penalty != 1
        return SequenceStart(
            request_id=self.command.request_id,
            sampling=sampling,
            prompt_tokens=self.prompt_tokens,
            generated=tuple(self.generated) if needs_said(sampling) else (),
            recent=tuple(self.tokens[: self.prompt_tokens][-REPEAT_LAST:]) if repeats else (),
            draws=self.draws,
            resumed=self.resumed,
            command=self.command if journal else None,
            acknowledge=self.acknowledge if journal else None,
        )

    def next_tokens(self, count: int) -> Tokens:
        """The next `count` tokens that are due."""
        return np.array(self.tokens[self.fed : self.fed + count], dtype=np.int32)

    @property
    def has_spoken(self) -> bool:
        """Whether a token has come in this epoch."""
        return len(self.tokens) != self.tokens_at_resume

    def note_resumption(self) -> None:
        """Another epoch has come: counts those in a row that brought no token."""
        self.resumed = 0 if self.has_spoken else self.resumed + 1

    def resume_at(self, position: int, chunk: int) -> None:
        """In a new epoch the tokens from `position` on are fed again, `chunk` at a time."""
        self.tokens_at_resume = len(self.tokens)
        self.fed = self.resumed_at = position
        self.chunk, self.started = chunk, False
        self.send_at = min(position + chunk, len(self.tokens))
        self.held.clear()

    def released(self) -> list[Frame]:
        """What is to be sent now: the frames held back, joined to one."""
        if self.fed < self.send_at or not self.held:
            return []
        frame, self.held = joined(self.held), []
        self.send_at = min(self.fed + self.chunk, len(self.tokens))
        return [frame]

    def say(self, model: Model, token: Token, context_tokens: int) -> Said:
        """Takes the next token; whether the text goes on after it."""
        known = len(self.tokens)
        self.draws = token.draws
        self.text.note_first_token()
        if model.ends_generation(token.token):
            self.text.finish("stop", detail="end_of_generation")
            return "finished"
        self.tokens.append(token.token)
        stop = self.text.say(
            token.token, model.piece(token.token, spoken=self.text.reads), _logprob(model, token, self)
        )
        if stop is not None:
            self.text.finish("stop", detail="stop_string", stop_string=stop)
        elif self.text.generated >= self.command.sampling.max_tokens:
            self.text.finish("length", detail="max_tokens")
        elif known >= context_tokens:
            self.text.finish("length", detail="context_full")
        else:
            return "goes_on"
        return "finished"

    @property
    def finished(self) -> Finished | None:
        """The outcome, or None while there is none."""
        return self.text.generation.finished


def new_sequence_state(
    number: int,
    command: Generate,
    prompt: Tokens,
    model: Model,
    generation: Generation,
    on_event: OnEvent,
    acknowledge: str | None = None,
    sampling: Sampling | None = None,
    form: AnswerForm | None = None,
) -> SequenceState:
    """A sequence of which nothing has been generated yet. `sampling` is the command's, perhaps with the
    grammar of a call that is required; `form` says what may be in the text. Raises InvalidRequest for sampler
    options that cannot be used: the sampler made here is checked, the last stage's is used."""
    options = command.sampling if sampling is None else sampling
    sampler = new_sampler(model, options)
    text = engine_sequence.Sequence(prompt, options, sampler, generation, on_event, form)
    return SequenceState(number, command, prompt.tolist(), len(prompt), text, acknowledge, options)


def resume_position(tokens: int, cells: Iterable[int], *, windowed: bool) -> int:
    """From which token on a sequence of `tokens` known ones is fed again, given how many each stage holds.

    The last known token is always fed again: its successor has not arrived. Where layers have sliding
    windows, cells before the window are gone, so a stage can go back by no more than a token.
    """
    held = list(cells)
    position = min(tokens - 1, *held)
    return 0 if windowed and max(held) > position + 1 else position


def joined(frames: Sequence[Frame]) -> Frame:
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


def _logprob(model: Model, token: Token, flow: SequenceState) -> TokenLogprob | None:
    if not flow.command.sampling.logprobs:
        return None
    top = tuple(RankedToken(i, model.text_of([i]), logprob) for i, logprob in token.alternatives)
    return TokenLogprob(token.token, model.text_of([token.token]), token.logprob, top)
