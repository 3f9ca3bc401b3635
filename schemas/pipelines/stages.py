"""What the stages of a pipeline tell one another beside hidden states: who is alive, what is being generated.

`StageBeat` travels on `choir.signal.stage.<pipeline>`; `SequenceStart` is the body of a start in
`schemas/pipelines/stage_wire.py`.
"""

from __future__ import annotations

from operator import not_
from typing import Annotated

from pydantic import Field

from schemas.commands import Generate
from schemas.message import Message, Name, OwnedId
from schemas.requests.sampling import Sampling

Cells = Annotated[int, Field(ge=0)]


def _is_none(value: object) -> bool:
    return value is None


class SequenceStart(Message):
    """A sequence begins at a position, or goes on there in a new epoch.

    `generated` are the tokens that stage 0 knows after the prompt, if a sampler needs them, `draws` the
    random numbers that were used for them: with both, any last stage samples what the first one would have.
    `recent` are the last tokens of the prompt, where repetitions of them count.
    `follows` is the sequence that had this one's place before and has ended: what both begin with, up to the
    position of the start, is in the cells already.
    `prompt_tokens` is the length of the prompt. `resumed` counts the epochs in a row that brought no token.
    `command` is there in the journal only, for a stage 0 that takes over, with the subject that acknowledges
    its delivery.
    """

    request_id: OwnedId
    sampling: Sampling
    prompt_tokens: Annotated[int, Field(ge=1)]
    generated: tuple[int, ...] = ()
    recent: Annotated[tuple[int, ...], Field(exclude_if=not_)] = ()
    follows: Annotated[int | None, Field(ge=0, lt=2**63, exclude_if=_is_none)] = None
    draws: Annotated[int, Field(ge=0)] = 0
    resumed: Annotated[int, Field(ge=0)] = 0
    command: Generate | None = None
    acknowledge: str | None = None


class StageBeat(Message):
    """A stage is alive. Once `ready` in its epoch, `cells` says how many tokens of each live sequence it
    held when the epoch began for it.

    `step_ms` is the measured time of a step for some numbers of sequences with a token each. `idle` says that
    the stage has nothing to do, and `progress` counts what it has done and was sent: where all stages are
    idle, and no count grows, nothing is on its way any more. Stage 0 adds the `live` sequences, and when the
    oldest of them began. The `first` beat of a process in its place says that the silence before was that of
    one which is gone. A stage that `speculates` takes frames of guessed tokens; older ones do not say so.
    """

    pipeline: Annotated[int, Field(ge=1, lt=2**63)]
    epoch: Annotated[int, Field(ge=1)]
    stage: Annotated[int, Field(ge=0)]
    instance: Name
    ready: bool
    cells: dict[int, Cells] = Field(default_factory=dict)
    step_ms: dict[int, float] = Field(default_factory=dict)
    idle: bool = True
    progress: Annotated[int, Field(ge=0)] = 0
    live: tuple[int, ...] = ()
    oldest_began_at_s: float | None = None
    first: Annotated[bool, Field(exclude_if=not_)] = False
    speculates: Annotated[bool, Field(exclude_if=not_)] = False
